"""The exact bodies of records about a lane that follows another one (docs/spec/record.md)."""

from countermark_verify.fields import ALIAS, DIGEST, KEY, NAME, NATURAL, PAIRS_MAX, SIGNATURE, TERMS, TEXT
from countermark_verify.shape import Check, fixed, integer, listing, maybe, record, text

_LANE = text(r"l(?:0|[1-9][0-9]{0,3})")
LANES: dict[str, Check] = {
    "lane.succeeded": record(
        {
            "lane": _LANE,
            "log_key": NAME,
            "predecessor": record({"lane": _LANE, "size": NATURAL, "root": text(r"[0-9a-f]{64}"), "log_key": NAME}),
            "known": maybe(record({"size": NATURAL, "root": text(r"[0-9a-f]{64}")})),
            "activity": record(
                {
                    "since": integer(),
                    "until": integer(),
                    "asked": listing(NAME),
                    "unasked": listing(NAME),
                    "found": NATURAL,
                    "digest": DIGEST,
                }
            ),
        }
    ),
    "lane.imported": record(
        {
            "ref": TEXT,
            "key": TEXT,
            "tool": TEXT,
            "terms": TERMS,
            "pairs": maybe(listing(fixed(text(ALIAS), TEXT), PAIRS_MAX)),
            "obligation": maybe(DIGEST),
            "moved_at": integer(),
        }
    ),
    "lane.accepted": record(
        {
            "acceptance": record(
                {
                    "deployment": NAME,
                    "lane": _LANE,
                    "succession": DIGEST,
                    "imported": NATURAL,
                    "bundle": DIGEST,
                    "person": NAME,
                }
            ),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
}
