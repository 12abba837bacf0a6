"""The exact bodies of records about what people said afterwards (docs/spec/record.md)."""

from countermark_verify.bodies import CALL
from countermark_verify.fields import (
    ACTION_ID,
    ALIAS,
    DIGEST,
    FOUR_EYES,
    KEY,
    NAME,
    NATURAL,
    PAIRS_MAX,
    REF,
    SIGNATURE,
    TERMS,
    TEXT,
    words,
)
from countermark_verify.shape import Check, const, fixed, listing, maybe, record, text

HINDSIGHT: dict[str, Check] = {
    "action.resolved": record(
        {
            "id": ACTION_ID,
            **CALL,
            "terms": TERMS,
            "intent": NATURAL,
            "resolution": record(
                {
                    "v": const(1),
                    "deployment": NAME,
                    "action": ACTION_ID,
                    "intent_digest": DIGEST,
                    "outcome": const("confirmed", "failed"),
                    "ref": REF,
                    "amount": maybe(NATURAL),
                    "reason": words,
                }
            ),
            "signed": FOUR_EYES,
        }
    ),
    "review.cleared": record(
        {
            "id": ACTION_ID,
            "decided": NATURAL,
            "review": record(
                {"deployment": NAME, "action": ACTION_ID, "decided_digest": DIGEST, "person": NAME, "note": words}
            ),
            "key": KEY,
            "sig": SIGNATURE,
        }
    ),
    "obligation.reopened": record(
        {
            "id": ACTION_ID,
            **CALL,
            "terms": TERMS,
            "refused": NATURAL,
            "reopening": record(
                {"v": const(1), "deployment": NAME, "action": ACTION_ID, "refusal_digest": DIGEST, "reason": words}
            ),
            "signed": FOUR_EYES,
        }
    ),
    "obligation.imported": record(
        {
            "obligation": DIGEST,
            "import": record(
                {
                    "v": const(1),
                    "deployment": NAME,
                    "tool": NAME,
                    "pairs": listing(fixed(text(ALIAS), TEXT), PAIRS_MAX),
                    "ref": REF,
                    "date": text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
                    "source": words,
                }
            ),
            "signed": FOUR_EYES,
        }
    ),
}
