"""What is wrong with a definition, and what failed while an expression was evaluated."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeAlias

from countermark.model.errors import CountermarkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Path: TypeAlias = "tuple[str | int, ...]"

TOLD_MAX = 50  # mistakes of one definition


class DefinitionError(CountermarkError):
    """A workflow's definition is wrong.

    Attributes:
        what: what is wrong, without the place.
        path: where in the document: ``("jobs", "pay", "steps", "send", "with", "amount")``; jobs and steps by id.
        line, column: where in the source, from 1; 0 when there is no source, only a document.
        file: the name of that source, when it is not the one text that was given.
        others: what else is wrong, each with its own place; ``message`` then tells all, and there is no ``hint``.
        offset: in an expression, the number of characters before the mistake; else 0.
    """

    code = "bad_definition"

    def __init__(
        self, what: str, *, hint: str = "", path: Path = (), line: int = 0, column: int = 0, offset: int = 0,
        file: str = "", others: Sequence[DefinitionError] = (),
    ) -> None:  # fmt: skip
        place = f"line {line}, column {column}: " if line else f"{'.'.join(map(str, path))}: " if path else ""
        if file:
            place = f"{file}, {place}" if place else f"{file}: "
        message = place + what
        if others:
            lines = [f"{message}. {hint}".strip(), *(f"{one.message}. {one.hint}".strip() for one in others)]
            more = [f"... and {len(lines) - TOLD_MAX} more"] if len(lines) > TOLD_MAX else []
            message, hint = "\n  ".join([f"{len(lines)} mistakes:", *lines[:TOLD_MAX], *more]), ""
        super().__init__(message, hint=hint)
        self.what = what
        self.others = tuple(others)
        self.first: DefinitionError | None = None  # of several, the first one alone
        self.path = path
        self.line = line
        self.column = column
        self.offset = offset
        self.file = file

    @property
    def each(self) -> tuple[DefinitionError, ...]:
        """Every mistake on its own, this one first."""
        return (self.first or self, *self.others)

    def of_file(self, name: str) -> DefinitionError:
        """The same mistake, with the name of the file that was read; one that has a name keeps it."""
        return joined([_named(one, name) for one in self.each])

    def within(self, path: Path) -> DefinitionError:
        """The same mistake, found in this part of a document."""
        return joined(
            [DefinitionError(one.what, hint=one.hint, path=(*path, *one.path), offset=one.offset) for one in self.each]
        )


def _named(one: DefinitionError, name: str) -> DefinitionError:
    return DefinitionError(one.what, hint=one.hint, path=one.path, line=one.line, column=one.column,
                           offset=one.offset, file=one.file or name)  # fmt: skip


def joined(found: Sequence[DefinitionError]) -> DefinitionError:
    """Mistakes that do not follow from each other, at least one, as one error."""
    first, *others = found
    if not others:
        return first
    whole = DefinitionError(first.what, hint=first.hint, path=first.path, line=first.line, column=first.column,
                            offset=first.offset, file=first.file, others=others)  # fmt: skip
    whole.first = first
    return whole


class Mistakes:
    """Reads or checks parts that do not build on each other, all of them, whatever is wrong with one::

    mistakes = Mistakes()
    for part in parts:
        with mistakes:
            check(part)
    mistakes.tell()
    """

    def __init__(self) -> None:
        self._found: list[DefinitionError] = []

    def __enter__(self) -> None:
        """One part begins."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, DefinitionError):
            return False
        self._found += error.each
        return True

    def tell(self) -> None:
        """Raise ``DefinitionError`` with everything that was wrong, if anything was."""
        if self._found:
            raise joined(self._found)


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
