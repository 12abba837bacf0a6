"""One error shape for the whole product: a stable code, what happened, what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from countermark.model.words import close_to, quoted


class CountermarkError(Exception):
    """Base of every error a public function raises.

    Attributes:
        code: stable, lower_snake_case; documented in ``docs/reference/errors.md``.
        message: what happened, in one sentence, without secrets.
        hint: what to do next, or an empty string.
        retryable: whether the same call may succeed later, unchanged.
    """

    code = "error"
    retryable = False

    def __init__(self, message: str, *, code: str | None = None, hint: str = "", retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]" + (f" {self.hint}" if self.hint else "")


class EncodingError(CountermarkError):
    """A value or a byte string is outside the record profile."""

    code = "bad_encoding"


class ArgumentError(CountermarkError):
    """An action's arguments do not fit the tool's schema.

    ``code`` is one of ``bad_argument``, ``unknown_argument``, ``missing_argument``, ``unknown_tool``.
    """

    code = "bad_argument"

    def __init__(self, message: str, *, field: str = "", code: str | None = None, hint: str = "") -> None:
        super().__init__(message, code=code, hint=hint)
        self.field = field


class SignatureError(CountermarkError):
    """A signature, key or signed note does not verify or does not parse."""

    code = "bad_signature"


class ProofError(CountermarkError):
    """An inclusion or consistency proof does not lead to the given root."""

    code = "bad_proof"


class AuthorityError(CountermarkError):
    """A mandate or an approval does not grant what is asked."""

    code = "not_authorised"


class FactError(CountermarkError):
    """A fact cannot be computed; the decision is a deny."""

    code = "fact_missing"


class PolicyError(CountermarkError):
    """A policy bundle is unreadable, empty or wrong. ``findings`` lists every problem."""

    code = "bad_policy"

    def __init__(
        self, message: str, *, findings: tuple[object, ...] = (), code: str | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.findings = findings


class StoreError(CountermarkError):
    """The journal cannot be read or written; nothing proceeds."""

    code = "store_failed"


class BehindHighWaterError(StoreError):
    """The database ends before the last published head: it was truncated or an older copy was put back."""

    code = "behind_high_water"


class GateHaltedError(CountermarkError):
    """The lane stopped after a failed commit; ask again and read what the journal says."""

    code = "gate_halted"
    retryable = True


class GateBusyError(CountermarkError):
    """The lane's inbox is full; nothing was recorded."""

    code = "gate_busy"
    retryable = True


class ConfigError(CountermarkError):
    """A deployment directory, a configuration file or a command-line value is wrong."""

    code = "bad_config"


def no_member(what: str, body: Mapping[str, object], members: Collection[str]) -> ArgumentError:
    """The refusal of a body with a member that is none of ``members``: which one, told back in bounds."""
    name = min(str(key) for key in body if key not in members)
    return ArgumentError(
        f"{what} has no member {quoted(name)}", code="unknown_argument",
        hint=f"{close_to(name, members)} Members: {', '.join(sorted(members)) or 'none'}.".strip(),
    )  # fmt: skip
