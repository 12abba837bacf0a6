"""Strict reading of signed documents: exact members, exact types, bounds. Everything else is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.errors import AuthorityError
from countermark.model.values import NAME

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HEX32 = re.compile(r"[0-9a-f]{32}")
PAYEE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # no colon: a pseudonym ``p:...`` is never a payee's id
CURRENCY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")  # a code, or the name of a token on a chain
POLICY_ID = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,128}")
TEXT_CHARS_MAX = 500  # purposes and reasons

_TEXT = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]*")


class Fields:
    """A document whose members are exactly ``names``. Each reader returns a member or raises ``AuthorityError``.

    The error's code is ``bad_`` + ``kind``; its message names the member, never the value.
    """

    def __init__(self, kind: str, value: object, names: frozenset[str]) -> None:
        self.kind = kind
        if not isinstance(value, Mapping) or value.keys() != names:
            raise self.error("must be an object with exactly the members " + ", ".join(sorted(names)))
        self._value: Mapping[str, Any] = value

    def error(self, message: str, hint: str = "") -> AuthorityError:
        return AuthorityError(f"the {self.kind} {message}", code=f"bad_{self.kind}", hint=hint)

    def version(self) -> None:
        if self.integer("v") != 1:
            raise self.error("has an unknown version")

    def string(self, name: str, form: re.Pattern[str] = NAME, hint: str = "") -> str:
        value = self._value[name]
        if type(value) is not str or form.fullmatch(value) is None:
            raise self.error(f"has no valid {name}", hint)
        return value

    def optional(self, name: str, form: re.Pattern[str]) -> str | None:
        """A string, or null."""
        return None if self._value[name] is None else self.string(name, form)

    def text(self, name: str, chars_min: int = 1) -> str:
        """Words for people: up to ``TEXT_CHARS_MAX`` characters, no control characters but tab and newline."""
        value = self.string(name, _TEXT)
        if len(value.strip()) < chars_min or len(value) > TEXT_CHARS_MAX:
            raise self.error(f"has no {name}, or one of more than {TEXT_CHARS_MAX} characters")
        return value

    def integer(self, name: str, low: int = 0, high: int = INTEGER_ABS_MAX) -> int:
        value = self._value[name]
        if type(value) is not int or not low <= value <= high:
            raise self.error(f"has no valid {name}")
        return value

    def strings(self, name: str, form: re.Pattern[str], count_max: int, count_min: int = 0) -> tuple[str, ...]:
        """A list of different strings of one form."""
        value = self._value[name]
        if type(value) is not list or not count_min <= len(value) <= count_max:
            raise self.error(f"must have {count_min} to {count_max} {name}")
        if any(type(item) is not str or form.fullmatch(item) is None for item in value):
            raise self.error(f"has an invalid entry in {name}")
        if len(set(value)) != len(value):
            raise self.error(f"names something twice in {name}")
        return tuple(value)

    def items(self, name: str, count_max: int) -> list[Any]:
        value = self._value[name]
        if type(value) is not list or len(value) > count_max:
            raise self.error(f"must have a list of at most {count_max} {name}")
        return value

    def member(self, name: str) -> Any:
        """A member as it stands, for a reader of its own."""
        return self._value[name]
