"""The exact bodies of what came back for a published head (docs/spec/record.md); what they hold is read where it is
judged.
"""

from countermark_verify.body_of_anchor import ANCHOR
from countermark_verify.fields import LABEL, NATURAL
from countermark_verify.shape import Check, integer, record, text

STAMP_CHARS_MAX = 32_000  # of a time stamp's token in base64

_ROOT = text(r"[0-9a-f]{64}")

PUBLISHED: dict[str, Check] = {
    "head.witnessed": record(
        {"size": NATURAL, "root": _ROOT, "asked": NATURAL, "answered": NATURAL, "note": text(chars_max=65_536)}
    ),
    "head.stamped": record(
        {
            "size": integer(1),
            "root": _ROOT,
            "authority": LABEL,
            "token": text(r"[A-Za-z0-9+/]+={0,2}", STAMP_CHARS_MAX),
            "asked": NATURAL,
            "answered": NATURAL,
        }
    ),
    "anchor.published": ANCHOR,
}
