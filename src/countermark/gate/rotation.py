"""Lane message: the log's key changes hands; and which keys sign a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from countermark.log import LogSigner, vkey
from countermark.model.errors import AuthorityError, StoreError
from countermark.policy import State, check_rotation

if TYPE_CHECKING:
    from countermark.gate.writer import Writer


def rotate(writer: Writer, body: Mapping[str, Any]) -> dict[str, Any]:
    """Record a rotation: from this batch's head on the new key signs, and until the overlap ends the old one too.

    Raises:
        AuthorityError, SignatureError: the document or its signatures.
        StoreError: the gate does not have the new key.
    """
    order = check_rotation(writer.state, body, writer.at)
    new = vkey(writer.state.log_key.partition("+")[0], order.new.raw)
    if writer.signer.holds(new) is None:
        raise AuthorityError("the gate does not have the new key", code="no_log_key",
                             hint="Start the gate again after `countermark keys prepare`.")  # fmt: skip
    record = writer.add("key.rotated", dict(body))
    return {"old": writer.state.rotation and writer.state.rotation[0], "new": new, "until": order.until,
            "seq": record.seq}  # fmt: skip


def signers_of(signer: LogSigner, state: State, at_us: int) -> tuple[LogSigner, LogSigner | None]:
    """Who signs a head at ``at_us``: the log's key, and in an overlap the one before it.

    Raises:
        StoreError: ``no_log_key``: a key that must sign is not among the gate's.
    """
    if state.rotation is None:
        return signer, None
    old, new, until = state.rotation
    first = signer.holds(new)
    second = signer.holds(old) if at_us < until else None
    if first is None or (at_us < until and second is None):
        raise StoreError("a key that signs this log is missing", code="no_log_key",
                         hint="keys/log.pem and keys/log.next.pem both sign until the overlap ends.")  # fmt: skip
    return first, second
