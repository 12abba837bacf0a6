"""What can go wrong while reading: the first two are caught inside `verify`."""


class Malformed(ValueError):
    """A document is not in the form that the specification gives it; the message says where."""


class Unreadable(Exception):
    """The container itself cannot be read (step V01); `code` is the error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class TrustError(Exception):
    """The auditor's own trust file cannot be used: a usage error (exit 64), never a verdict."""


class WorkerError(Exception):
    """A process that was to help ended, or answered something else than it was asked: no verdict at all (exit 70)."""
