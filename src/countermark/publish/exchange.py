"""C2SP tlog-witness, `add-checkpoint`: the body of a request, as a log writes it and as a witness reads it.

old 20852014
BASE64 HASH              (none to 63 of them)

CHECKPOINT
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from countermark.log import HASH_BYTES, NOTE_BYTES_MAX, SIZE_MAX, b64, unb64
from countermark.model.errors import SignatureError

PROOF_MAX = 63
SIZE_TYPE = "text/x.tlog.size"
BODY_BYTES_MAX = NOTE_BYTES_MAX + 45 * PROOF_MAX + 32  # a hash and its newline are 45 bytes

_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True)
class Submission:
    """A head that is shown to a witness: the size it is to follow, the proof that it does, the signed note."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes

    def render(self) -> bytes:
        """The request's body."""
        lines = [f"old {self.old}", *map(b64, self.proof), ""]
        return "".join(f"{line}\n" for line in lines).encode("ascii") + self.note


def parse_submission(body: bytes) -> Submission:
    """Read a request's body in its one form; the note is not looked at. Raises ``SignatureError``."""
    if len(body) > BODY_BYTES_MAX:
        raise SignatureError(f"a request is longer than {BODY_BYTES_MAX} bytes")
    head, gap, note = body.partition(b"\n\n")
    try:
        first, *rest = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise SignatureError("what stands before the checkpoint is not ASCII") from None
    old = _OLD.fullmatch(first)
    if old is None or not gap or int(old[1]) > SIZE_MAX:
        raise SignatureError("a request does not begin with the old size")
    if len(rest) > PROOF_MAX:
        raise SignatureError(f"a proof has more than {PROOF_MAX} lines")
    proof = tuple(unb64(line) for line in rest)
    if any(len(one) != HASH_BYTES for one in proof):
        raise SignatureError("a line of the proof is not a hash")
    return Submission(int(old[1]), proof, note)


def parse_size(body: bytes) -> int | None:
    """The size that a witness answers with; None when the body is none."""
    found = _SIZE.fullmatch(body)
    return None if found is None or int(found[1]) > SIZE_MAX else int(found[1])


def text_of(note: bytes) -> str:
    """The signed text of a note that was read before."""
    return (note.rpartition(b"\n\n")[0] + b"\n").decode("utf-8")


def render_size(size: int) -> bytes:
    """The body of the answer that tells a size."""
    return b"%d\n" % size
