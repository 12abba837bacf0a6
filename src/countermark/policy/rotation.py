"""The log's key in the state: which one signs now, and which one still signs beside it (``docs/spec/record.md``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from countermark.authority import PublicKey, Rotation, verify_rotation
from countermark.log import vkey
from countermark.model.errors import AuthorityError
from countermark.model.records import Record

if TYPE_CHECKING:
    from countermark.policy.state import State


def check_rotation(state: State, body: Mapping[str, Any], at_us: int) -> Rotation:
    """Whether the log's key may change hands as ``body`` says, at ``at_us``.

    Raises:
        AuthorityError, SignatureError: the document or its signatures; it does not begin with the log's present key, or
            the overlap of the rotation before is not over.
    """
    origin = state.log_key.partition("+")[0]
    order = verify_rotation(
        body, deployment=state.deployment, lane=origin.rpartition("/")[2], people=state.people, at_us=at_us
    )
    if vkey(origin, order.old.raw) != state.log_key:
        raise AuthorityError("the rotation does not begin with the log's present key", code="bad_rotation",
                             hint="See `countermark status`.")  # fmt: skip
    if state.rotation is not None and at_us < state.rotation[2]:
        raise AuthorityError("the overlap of the last rotation is not over", code="bad_rotation",
                             hint="One key is handed over at a time.")  # fmt: skip
    return order


def rotated(state: State, record: Record, _: Callable[[], Iterable[Record]]) -> None:
    order = record.body["rotation"]
    new = vkey(state.log_key.partition("+")[0], PublicKey.parse(order["new"]).raw)
    state.rotation = (state.log_key, new, order["until"])
    state.log_key = new
