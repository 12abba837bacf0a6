"""A ledger of what was paid before the gate: read strictly, line by line, into what two people sign."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.authority import parse_import
from countermark.model.canon import read_json
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.policy import State, import_pairs, imported_obligation

RESERVED = ("tool", "ref", "date")
SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Line:
    """One obligation as the ledger has it: ``given`` are payee and arguments by alias, as texts."""

    number: int
    tool: str
    given: Mapping[str, str]
    ref: str
    date: str


class PaidError(ArgumentError):
    """Lines of a ledger that cannot be imported; the message names each with its number."""

    code = "bad_import"

    def __init__(self, wrong: list[tuple[int, str]]) -> None:
        shown = "; ".join(f"line {number}: {why}" for number, why in wrong[:SHOWN_MAX])
        more = f"; and {len(wrong) - SHOWN_MAX} more" if len(wrong) > SHOWN_MAX else ""
        super().__init__(f"nothing was imported; {shown}{more}", field="file", hint="Correct these lines.")


def read_paid(raw: bytes, tool: str = "") -> list[Line]:
    """Lines of JSON objects, or CSV with a head line. ``tool`` is for lines that name none.

    Raises:
        PaidError: a line is malformed.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PaidError([(1, "the file is not UTF-8")]) from None
    rows, wrong = _json(text) if text.lstrip().startswith("{") else _csv(text)
    lines = [
        Line(number, row.pop("tool", "") or tool, row, row.pop("ref", ""), row.pop("date", "")) for number, row in rows
    ]
    if wrong or not lines:
        raise PaidError(wrong or [(1, "there is nothing to import")])
    return lines


_Rows = tuple[list[tuple[int, dict[str, str]]], list[tuple[int, str]]]


def _json(text: str) -> _Rows:
    rows: list[tuple[int, dict[str, str]]] = []
    wrong: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = read_json(line.encode("utf-8"))
        except CountermarkError as error:
            wrong.append((number, error.message))
            continue
        if type(value) is not dict or any(type(item) not in (str, int) for item in value.values()):
            wrong.append((number, "not an object of texts and integers"))
        else:
            rows.append((number, {name: str(item) for name, item in value.items()}))
    return rows, wrong


def _csv(text: str) -> _Rows:
    _, rows, wrong = csv_rows(text)
    return [(number, {name: cell for name, cell in row.items() if cell}) for number, row in rows], wrong


def csv_rows(text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]], list[tuple[int, str]]]:
    """Columns, rows by line number, and what is wrong by line number. Cells are stripped; empty lines are left out."""
    rows: list[tuple[int, dict[str, str]]] = []
    wrong: list[tuple[int, str]] = []
    reader = csv.reader(io.StringIO(text), strict=True)
    head: list[str] = []
    start = 1
    try:
        for cells in reader:
            number, start = start, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not head:
                head = [cell.strip() for cell in cells]
                if len(set(head)) != len(head) or "" in head:
                    return head, rows, [(number, "the head line names a column twice, or not at all")]
            elif len(cells) != len(head):
                wrong.append((number, f"{len(cells)} cells under {len(head)} columns"))
            else:
                rows.append((number, {name: cell.strip() for name, cell in zip(head, cells, strict=True)}))
    except csv.Error as error:
        wrong.append((start, str(error)))
    return head, rows, wrong


def import_documents(
    state: State, lines: list[Line], source: str, pseudonym: Callable[[str, str], str]
) -> list[dict[str, Any]]:
    """The documents that two people sign, one for each line, under the bundle in force.

    Raises:
        PaidError: lines that do not make an obligation, are the same as another, or whose obligation is taken.
    """
    documents: list[dict[str, Any]] = []
    wrong: list[tuple[int, str]] = []
    seen: dict[str, int] = {}
    for line in lines:
        try:
            document, obligation = _document(state, line, source, pseudonym)
        except CountermarkError as error:
            wrong.append((line.number, error.message))
            continue
        taken = state.keys.get("ob:" + obligation)
        taken = state.refused.get(obligation) if taken is None else taken
        first = seen.setdefault(obligation, line.number)
        if first != line.number:
            wrong.append((line.number, f"the same obligation as in line {first}"))
        elif taken is not None:
            wrong.append((line.number, f"the obligation is taken already, by record #{taken}"))
        else:
            documents.append(document)
    if wrong:
        raise PaidError(wrong)
    return documents


def _document(
    state: State, line: Line, source: str, pseudonym: Callable[[str, str], str]
) -> tuple[dict[str, Any], str]:
    bundle = state.bundle
    if bundle is None:
        raise ArgumentError("no policy is active", code="bad_import")
    if not line.tool:
        raise ArgumentError("no tool is named", field="tool", code="bad_import")
    pairs = import_pairs(bundle, line.tool, line.given, pseudonym, state.register.known)
    document = {
        "v": 1, "deployment": state.deployment, "tool": line.tool, "pairs": pairs, "ref": line.ref,
        "date": line.date, "source": source,
    }  # fmt: skip
    return parse_import(document).document(), imported_obligation(bundle, line.tool, pairs, state.register.known.payees)
