"""How the answers of a JSON API are read, as a tool of the ``http`` connector declares it (``docs/spec/policy.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Statuses that do not say whether anything was done: too early, too late, too often, or in conflict with what is there.
UNDECIDED = frozenset((408, 409, 425, 429))


@dataclass(frozen=True, slots=True)
class Answers:
    """``confirmed`` and ``failed`` are statuses; empty means the rule of ``status_of``. ``ref``, ``amount`` and
    ``currency`` are JSON pointers (RFC 6901) into the answer, or ``""``. ``lookup`` is an endpoint that is asked by
    GET for an effect whose outcome is not known; ``{key}`` in it stands for the provider key.
    """

    confirmed: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    ref: str = ""
    amount: str = ""
    currency: str = ""
    lookup: str = ""

    def status_of(self, http_status: int) -> str:
        """``confirmed``, ``failed`` or ``unknown``. Unless declared: 2xx, 4xx but a few, and the rest."""
        if http_status in self.confirmed:
            return "confirmed"
        if http_status in self.failed:
            return "failed"
        if not self.confirmed and 200 <= http_status < 300:
            return "confirmed"
        if not self.failed and 400 <= http_status < 500 and http_status not in UNDECIDED:
            return "failed"
        return "unknown"

    def document(self) -> dict[str, object]:
        """JSON form, as it stands in a compiled bundle."""
        return {
            "confirmed": list(self.confirmed), "failed": list(self.failed), "ref": self.ref, "amount": self.amount,
            "currency": self.currency, "lookup": self.lookup,
        }  # fmt: skip


def answers_from(doc: Mapping[str, Any]) -> Answers:
    """Inverse of ``Answers.document``."""
    return Answers(
        tuple(doc["confirmed"]), tuple(doc["failed"]), doc["ref"], doc["amount"], doc["currency"], doc["lookup"]
    )


def pointed(document: object, pointer: str) -> object:
    """The value at a JSON pointer (RFC 6901), or ``None``."""
    found = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if type(found) is dict:
            found = found.get(name)
        elif type(found) is list and name.isdecimal() and name.isascii() and len(name) < 7 and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found
