"""The exact bodies of records about keeping, showing and erasing, and about epochs (docs/spec/record.md)."""

from countermark_verify.fields import ALIAS, DIGEST, FOUR_EYES, KEY, NAME, NATURAL, READER, SIGNATURE, words
from countermark_verify.shape import Check, const, either, integer, listing, record, text

HOLD_ID = text(r"hold_[0-9a-f]{16}")
SUBJECT = text(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}|p:[0-9a-f]{32}|agent:[a-z0-9][a-z0-9_.-]{0,63}")
FIELDS_MAX = 64
_SHORT = text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", chars_max=200)
_SCOPE = either(
    *(
        record({"kind": const(kind), "value": value})
        for kind, value in {
            "subject": SUBJECT,
            "payee": text(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"),
            "agent": text(r"[a-z0-9][a-z0-9_.-]{0,63}"),
            "run": text(r"run_[0-9a-f]{32}"),
            "all": const(""),
        }.items()
    )
)

KEPT: dict[str, Check] = {
    "hold.set": record(
        {
            "order": record(
                {
                    "v": const(1),
                    "deployment": NAME,
                    "hold": HOLD_ID,
                    "scope": _SCOPE,
                    "reason": words,
                    "person": NAME,
                }
            ),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
    "hold.cleared": record(
        {
            "hold": HOLD_ID,
            "release": record({"v": const(1), "deployment": NAME, "hold": HOLD_ID, "reason": words}),
            "signed": FOUR_EYES,
        }
    ),
    "data.erased": record(
        {
            "erasure": record(
                {
                    "v": const(1),
                    "deployment": NAME,
                    "subject": SUBJECT,
                    "generation": NATURAL,
                    "records": integer(1),
                    "values": integer(1),
                    "digest": DIGEST,
                    "reason": words,
                }
            ),
            "retention": record({"keep_s": NATURAL, "until": NATURAL}),
            "signed": FOUR_EYES,
        }
    ),
    "data.disclosed": record(
        {
            "reader": READER,
            "to": _SHORT,
            "reason": _SHORT,
            "fields": listing(text(ALIAS), FIELDS_MAX),
            "size": integer(1),
            "count": NATURAL,
        }
    ),
    "epoch.closed": record(
        {
            "epoch": NATURAL,
            "from": NATURAL,
            "size": NATURAL,
            "until": integer(),
            "root": text(r"[0-9a-f]{64}"),
            "streams": NATURAL,
            "manifest": text(r"[0-9a-f]{64}"),
        }
    ),
}
