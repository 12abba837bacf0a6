"""What is wrong with a definition, and what failed while an expression was evaluated."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeAlias

from countermark.model.errors import CountermarkError

if TYPE_CHECKING:
    from collections.abc import Iterable

Path: TypeAlias = "tuple[str | int, ...]"


class DefinitionError(CountermarkError):
    """A workflow's definition is wrong.

    Attributes:
        what: what is wrong, without the place.
        path: where in the document: ``("jobs", "pay", "steps", "send", "with", "amount")``; jobs and steps by id.
        line, column: where in the source, from 1; 0 when there is no source, only a document.
        file: the name of that source, when it is not the one text that was given.
        offset: in an expression, the number of characters before the mistake; else 0.
    """

    code = "bad_definition"

    def __init__(
        self, what: str, *, hint: str = "", path: Path = (), line: int = 0, column: int = 0, offset: int = 0,
        file: str = "",
    ) -> None:  # fmt: skip
        place = f"line {line}, column {column}: " if line else f"{'.'.join(map(str, path))}: " if path else ""
        if file:
            place = f"{file}, {place}" if place else f"{file}: "
        super().__init__(place + what, hint=hint)
        self.what = what
        self.path = path
        self.line = line
        self.column = column
        self.offset = offset
        self.file = file

    def of_file(self, name: str) -> DefinitionError:
        """The same mistake, with the name of the file that was read; one that has a name keeps it."""
        return DefinitionError(self.what, hint=self.hint, path=self.path, line=self.line, column=self.column,
                               offset=self.offset, file=self.file or name)  # fmt: skip

    def within(self, path: Path) -> DefinitionError:
        """The same mistake, found in this part of a document."""
        return DefinitionError(self.what, hint=self.hint, path=(*path, *self.path), offset=self.offset)


class ExpressionError(CountermarkError):
    """An expression cannot be evaluated on this data: a type does not fit, or a value is too long."""

    code = "expression_failed"


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint: the known name that looks most like ``word``, or the few that there are."""
    names = sorted(known)
    found = get_close_matches(word, names, n=1, cutoff=0.6)
    if found:
        return f"Did you mean `{found[0]}`?"
    if not names:
        return ""
    return f"Known here: {', '.join(names[:16])}{', ...' if len(names) > 16 else ''}."
