"""`disclosures.json`: sealed values that a pack opens, and salts of requests (docs/spec/pack.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark_verify import canon, sealed
from countermark_verify.container import DISCLOSURES_BYTES_MAX
from countermark_verify.errors import Malformed
from countermark_verify.shape import boolean, const, either, integer, listing, record, text

_HEX32 = text(r"[0-9a-f]{32}")
# Opened values and opened salts, each; and what that many can hold.
OPENED_MAX = 200_000
_VALUES_MAX = 2_000_000
_FIELD = {"seq": integer(0), "salt": _HEX32}
_DISCLOSURES = record(
    {
        "v": const(1),
        "fields": listing(
            either(
                record(_FIELD | {"alias": text(r"[A-Za-z0-9_.$-]{1,64}"), "value": either(text(), integer(), boolean)}),
                record(_FIELD | {"alias": text(sealed.ALIAS), "value": sealed.VALUES}),
            ),
            OPENED_MAX,
        ),
        "requests": listing(record({"seq": integer(0), "salt": _HEX32}), OPENED_MAX),
    }
)


@dataclass(frozen=True)
class Disclosures:
    """Opened values by (seq, alias), and opened request salts by seq."""

    fields: Mapping[tuple[int, str], tuple[str, Any]] = field(default_factory=dict)
    salts: Mapping[int, str] = field(default_factory=dict)

    def digest(self, seq: int, alias: str) -> str | None:
        """The field digest of what is opened there; None when nothing is."""
        found = self.fields.get((seq, alias))
        return None if found is None else canon.digest("field", canon.render([found[0], alias, found[1]]))


def read_disclosures(raw: bytes) -> Disclosures:
    """Raises `Malformed` for anything but the canonical, sorted document."""
    document: Any = canon.parse(raw, DISCLOSURES_BYTES_MAX, _VALUES_MAX)
    if reason := _DISCLOSURES(document):
        raise Malformed(f"does not have the shape of disclosures{reason}")
    places = [(item["seq"], item["alias"]) for item in document["fields"]]
    seqs = [item["seq"] for item in document["requests"]]
    if places != sorted(set(places)) or seqs != sorted(set(seqs)):
        raise Malformed("is not sorted, or opens something twice")
    values = [(item["salt"], item["value"]) for item in document["fields"]]
    return Disclosures(
        dict(zip(places, values, strict=True)), {item["seq"]: item["salt"] for item in document["requests"]}
    )
