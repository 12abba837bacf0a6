"""Names and accounts that a person may take for one another: equal as they look, or a slip of the pen apart.

The way of Unicode TR39: two texts are confusable when their skeletons are equal. The skeleton here is made by NFKC,
without marks, case-folded, with the letters below replaced. The table is short: it has what looks the same in Latin,
Greek and Cyrillic, and what is told apart badly in any of them; it is a warning to people, and no proof.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from countermark.policy.bundle import Payee

FOUND_MAX = 8
SHORT_CHARS = 6  # a name as short as this is only alike when it looks the same
LONG_CHARS = 12  # from here on two slips are one
COMPARED_CHARS_MAX = 200
SKELETONS_MAX = 32_768  # remembered: names and accounts of a full register

_SAME = {
    "аеорсухіјѕԁһԛԝѵӏкмтвнг": "aeopcyxijsdhqwvlkmtbhr",
    "αεικνορτυχωβηγμ": "aeikvoptuxwbnym",
    "ıł|!": "illl",
    "015$@": "olssa",
    "øđħæœþ": "odhaop",
}
_TABLE = {ord(a): b for looks, plain in _SAME.items() for a, b in zip(looks, plain, strict=True)}
_PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("i", "l"))
_LEFT_OUT = frozenset(("Mn", "Me", "Cf", "Zs", "Pd", "Po", "Pc", "Ps", "Pe"))


@dataclass(frozen=True, slots=True)
class Alike:
    """A payee that may be taken for another one. ``because`` is ``name`` or ``account``."""

    payee: str
    name: str
    because: str

    def document(self) -> dict[str, str]:
        return {"payee": self.payee, "name": self.name, "because": self.because}


@lru_cache(maxsize=SKELETONS_MAX)
def skeleton(text: str) -> str:
    """What a text looks like: two texts with one skeleton look the same, or nearly so."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text[:COMPARED_CHARS_MAX]).casefold())
    letters = "".join(c for c in plain if unicodedata.category(c) not in _LEFT_OUT).translate(_TABLE)
    for seen, meant in _PAIRS:
        letters = letters.replace(seen, meant)
    return letters


def near(one: str, other: str) -> bool:
    """Whether two skeletons are equal, or one or two slips apart, as their length allows."""
    if one == other:
        return bool(one)
    shorter = min(len(one), len(other))
    slips = 0 if shorter <= SHORT_CHARS else 1 if shorter < LONG_CHARS else 2
    return abs(len(one) - len(other)) <= slips and _share(one, other, slips) and _within(one, other, slips)


def _share(one: str, other: str, slips: int) -> bool:
    """Whether a part of one stands in the other. A slip touches two parts at most, so of one more a part is whole."""
    parts = 2 * slips + 1
    size = len(one) // parts
    return any(one[at * size : (at + 1) * size] in other for at in range(parts))


def _within(one: str, other: str, slips: int) -> bool:
    """Whether at most ``slips`` letters were put in, left out, exchanged or swapped with their neighbour."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    if not one or not other:
        return len(one) + len(other) <= slips
    if slips == 0:
        return False
    rests = [(one[1:], other), (one, other[1:]), (one[1:], other[1:])]
    if len(one) > 1 and one[:2] == other[1::-1]:
        rests.append((one[2:], other[2:]))
    return any(_within(*rest, slips - 1) for rest in rests)


def alike(payees: Mapping[str, Payee], *, name: str = "", account: str = "", but: str = "") -> list[Alike]:
    """Payees other than ``but`` whose name or account may be taken for these; at most ``FOUND_MAX``, by id.

    An account that is equal is no look-alike. A closed payee still has its name.
    """
    found = _alike(payees, (skeleton(name), skeleton(account)), account, but)
    return [row for row, _ in zip(found, range(FOUND_MAX), strict=False)]


def _alike(payees: Mapping[str, Payee], mine: tuple[str, str], account: str, but: str) -> Iterator[Alike]:
    for payee in sorted(payees.values(), key=lambda payee: payee.id):
        if payee.id == but:
            continue
        if mine[0] and near(mine[0], skeleton(payee.name)):
            yield Alike(payee.id, payee.name, "name")
        elif mine[1] and payee.account not in ("", account) and near(mine[1], skeleton(payee.account)):
            yield Alike(payee.id, payee.name, "account")
