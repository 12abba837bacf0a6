"""What keeps a pure step from being run at all. What happens while one runs is a ``Ran``, never an exception."""

from __future__ import annotations

from countermark.model.errors import CountermarkError


class ComputeBusyError(CountermarkError):
    """The pool's queue is full; nothing was run."""

    code = "compute_busy"
    retryable = True


class ComputeClosedError(CountermarkError):
    """The pool was closed before the step had run."""

    code = "compute_closed"
    retryable = True


class UnconfinedError(CountermarkError):
    """A worker cannot be confined here, so it runs nothing."""

    code = "compute_unconfined"
