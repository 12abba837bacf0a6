"""V15: `population.csv`, made again from the records, and the figures that `index.html` shows (docs/spec/pack.md)."""

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from countermark_verify import canon
from countermark_verify.container import PAGE, PAGE_BYTES_MAX, POPULATION
from countermark_verify.errors import Malformed
from countermark_verify.report import Ledger

HEADER = (
    "seq,at,id,run,agent,call_id,tool,payee,amount,currency,asked,decided,disposition,stage,code,answers,settled,"
    "outcome,outcome_code,settled_amount,settled_currency,ref"
)
_START = datetime.datetime(1970, 1, 1)
_SPELL = {code: f"\\u{code:04x}" for code in (
    *range(0x20), *range(0x7F, 0xA1), 0x3B, 0x5C, 0x61C, *range(0x200B, 0x2010), *range(0x2028, 0x2030),
    *range(0x2060, 0x2070), 0xFEFF)} | {0x22: '""'}  # fmt: skip
_STARTS_FORMULA = tuple("=+-@'\uff1d\uff0b\uff0d\uff20")
_FIGURES = re.compile(rb'<script type="application/json" id="figures">([^<]*)</script>')


@dataclass(slots=True)
class _Row:
    """An action, as far as the file and its sums say something of it: a day has hundreds of thousands."""

    seq: int
    at: int
    asked: tuple[int | None, str | None]
    first: str  # the cells that the first decision gives
    newest: str = ""
    ends: str = "open"  # what an action without an outcome is
    answers: str = ""
    outcome: str = ""
    settled: str = ",,,"
    settled_at: str = ""
    booked: tuple[int | None, str | None] = (None, None)


class Population:
    """Collects the actions as the records go by."""

    def __init__(self, *, lines: bool) -> None:
        """`lines`: the file is there, and will be held against them."""
        self._lines = lines
        self._actions: dict[str, _Row] = {}

    def check(self, position: int, record: dict[str, Any]) -> None:
        kind, body = record["kind"], record["body"]
        if kind == "action.decided":
            row = self._actions.get(body["id"])
            if row is None:
                row = self._actions[body["id"]] = self._first(position, record["at"], body)
            row.ends = "open" if body["disposition"] in ("allow", "flag") else ""
            row.newest = self._cells(position, *(body[name] for name in ("disposition", "stage", "code")))
        elif kind in ("escalation.answered", "action.settled") and body["id"] in self._actions:
            row = self._actions[body["id"]]
            if kind == "action.settled":
                self._settled(position, row, body)
            else:
                answer = f"{body['approval']['verdict']} {body['approval']['person']}"
                row.answers = f"{row.answers}, {answer}" if row.answers else answer

    def _first(self, position: int, at: int, body: dict[str, Any]) -> _Row:
        time = (_START + datetime.timedelta(microseconds=at)).isoformat(timespec="microseconds") + "Z"
        terms = body["terms"]
        cells = self._cells(
            position, time, *(body[name] for name in ("id", "run", "agent", "call_id", "tool")),
            *(terms[name] for name in ("payee", "amount", "currency")), body["disposition"],
        )  # fmt: skip
        return _Row(position, at, (terms["amount"], terms["currency"]), cells)

    def _settled(self, position: int, row: _Row, body: dict[str, Any]) -> None:
        row.outcome, row.settled_at, row.booked = body["outcome"], str(position), (None, None)
        if body["outcome"] == "confirmed":
            booked = body["settled"] or body["terms"]
            row.booked = booked["amount"], booked["currency"] or body["terms"]["currency"]
        moved = body["settled"] or {"amount": None, "currency": None}
        row.settled = self._cells(body["code"], moved["amount"], moved["currency"], body["ref"])

    def _cells(self, *values: Any) -> str:
        return ",".join(map(_cell, values)) if self._lines else ""

    def __len__(self) -> int:
        return len(self._actions)

    def asked(self) -> dict[str, int]:
        """Sum of what was asked for, by currency, over all lines."""
        sums: dict[str, int] = {}
        for row in self._actions.values():
            _sum(sums, *row.asked)
        return sums

    def inside(self, start: int, end: int) -> dict[str, Any]:
        """Actions first decided within these times, and sums of theirs, by currency."""
        own = [row for row in self._actions.values() if start <= row.at < end]
        asked: dict[str, int] = {}
        moved: dict[str, int] = {}
        for row in own:
            _sum(asked, *row.asked)
            _sum(moved, *row.booked)
        return {"actions": len(own), "asked": _rows(asked), "totals": _rows(moved)}

    def lines(self) -> Iterator[bytes]:
        yield HEADER.encode() + b"\r\n"
        for row in self._actions.values():
            state = _cell(row.outcome or row.ends)
            cells = row.first, row.newest, _cell(row.answers), row.settled_at, state, row.settled
            yield ",".join(cells).encode() + b"\r\n"

    def finish(self, ledger: Ledger, members: Mapping[str, memoryview]) -> None:
        """The file has exactly these bytes; a pack of before this member need not have it."""
        found = members.get(POPULATION)
        if found is None:
            return
        ledger.ran("V15", len(self))
        place = 0
        for number, line in enumerate(self.lines()):
            if found[place : place + len(line)] != line:
                actual = bytes(found[place : place + 400]).split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")
                seq = list(self._actions.values())[number - 1].seq if number else None
                message = f"{POPULATION} says something else than the records in line {number + 1}"
                ledger.refute("V15.population", message, seq, line.decode().rstrip(), actual)
                return
            place += len(line)
        if place != len(found):
            message = f"{POPULATION} has more lines than there are actions"
            ledger.refute("V15.population", message, None, place, len(found))


def _sum(sums: dict[str, int], amount: int | None, currency: str | None) -> None:
    if amount is not None and currency is not None:
        sums[currency] = sums.get(currency, 0) + amount


def _rows(sums: Mapping[str, int]) -> list[list[str]]:
    return [[name, str(amount)] for name, amount in sorted(sums.items())]


@lru_cache(maxsize=256)
def _cell(value: Any) -> str:
    if value is None or value == "":
        return ""
    if type(value) is int:
        return str(value)
    text = value.translate(_SPELL)
    return f'"\'{text}"' if text.lstrip(" ").startswith(_STARTS_FORMULA) else f'"{text}"'


def check_page(
    ledger: Ledger, members: Mapping[str, memoryview], pack: Mapping[str, Any], counts: Mapping[str, Any],
    population: Population,
) -> None:  # fmt: skip
    """The figures that stand in the page for programs are those of the records. Its words are for reading only."""
    page = members.get(PAGE)
    if page is None:
        return
    ledger.ran("V15", 1)
    found = _FIGURES.findall(bytes(page))
    expected = figures(pack, counts, population)
    try:
        if len(found) != 1:
            raise Malformed("does not hold its figures once")
        shown: Any = canon.parse_loose(found[0], PAGE_BYTES_MAX)
    except Malformed as error:
        ledger.refute("V15.page", f"{PAGE} {error}")
        return
    if canon.render(shown) != canon.render(expected):
        names = [name for name in expected if not isinstance(shown, dict) or shown.get(name) != expected[name]]
        first = names[0] if names else None
        actual = shown.get(first) if isinstance(shown, dict) and first else None
        message = f"{PAGE} shows other figures than the records give: {', '.join(names) or 'more than these'}"
        ledger.refute("V15.page", message, None, expected.get(first) if first else None, actual)


def figures(pack: Mapping[str, Any], counts: Mapping[str, Any], population: Population) -> dict[str, Any]:
    """What the page has to say. Sums are text, since they may exceed what a number in JSON can hold; a currency may be
    any text, so it is no member's name.
    """
    plain = ("kinds", "dispositions", "waived", "outcomes", "open", "unknown", "withheld", "erased", "disclosed")
    sums = {name: _rows(counts[name]) for name in ("totals", "asked")}
    about: dict[str, Any] = {}
    if "scope" in pack:
        scope = {name: value for name, value in pack["scope"].items() if name not in ("records", "inside")}
        about = {"scope": scope, "inside": population.inside(scope["from"], scope["to"])}
    return {
        "v": 1,
        **{name: pack[name] for name in ("origin", "size", "root")},
        **{name: counts[name] for name in plain},
        "actions": counts["actions"],
        **sums,
        **about,
    }
