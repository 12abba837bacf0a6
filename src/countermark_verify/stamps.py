"""V16: time stamps over heads (RFC 3161, docs/spec/verify.md), and what they say about the times of the records.

The tokens are read and verified by `rfc3161-client`, the extra `stamp`; without it nothing is said about them, and the
step is incomplete where the auditor asks for it. A token counts only under a certificate of the trust file.
"""

import base64
import hashlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from countermark_verify.counts import Counts
from countermark_verify.crypto import decode64
from countermark_verify.errors import Malformed
from countermark_verify.report import Ledger, moment
from countermark_verify.state import State
from countermark_verify.tree import Tree
from countermark_verify.trust import Stamp, Trust

_US = 1_000_000
# How far the records' times may be off an authority's. A clock that is a second off is measured; one that is further
# off than this makes the times of the records another story than the authority's.
CLOCK_US_MAX = 300 * _US
ACCURACY_US_MAX = 86_400 * _US
_GRANTED = b"\x30\x03\x02\x01\x00"  # RFC 3161 section 2.4.2: the status `granted`
_LONG_FORM = 0x80


@dataclass(frozen=True)
class _Token:
    """A token that can be read: the bytes stamped, and the bounds of its time in microseconds."""

    response: Any
    imprint: bytes
    earliest: int
    latest: int


class Stamps:
    """Follows every `head.stamped`; `finish` says what the times rest on."""

    def __init__(
        self, ledger: Ledger, state: State, trust: Trust | None, tree: Tree | None, counts: Counts,
        shown: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        self._shown = shown  # told what an authority showed: a size, and when it was there (microseconds)
        self._ledger, self._state, self._tree, self._counts = ledger, state, tree, counts
        self._trusted = trust.stamps if trust is not None else ()
        self._client = _client() if self._trusted else None
        # The time of every record: a stamp bounds that of the last one below its size.
        self._times = array("q")
        self._time = 0
        self._accepted = self._own = self._others = 0
        self._newest: tuple[int, int, str] | None = None  # size, latest time, operator
        self._offset: list[int] = []
        if self._trusted:
            ledger.ran("V16")

    def check(self, position: int, record: dict[str, Any]) -> None:
        if self._trusted:
            self._times.extend([self._time] * (position - len(self._times)))  # records that could not be read
            self._time = record["at"]
            self._times.append(self._time)
        if record["kind"] == "head.stamped":
            self._ledger.ran("V16", 1)
            self._stamped(position, record)

    def finish(self) -> None:
        """What the times rest on, into the counts."""
        if self._tree is None:
            pass
        elif self._trusted and self._client is None:
            message = "rfc3161-client is not installed: no time stamp was verified"
            self._ledger.lack("V16.no_rfc3161", message)
        elif self._trusted and self._newest is None:
            message = "no authority of time that the auditor trusts, other than the deployment's own, stamped a head"
            self._ledger.lack("V16.none", message, None, None, {"own": self._own, "others": self._others})
        size, at, operator = self._newest or (None, None, None)
        self._counts.time = {
            "stamps": self._accepted,
            "own": self._own,
            "others": self._others,
            "covers": size,
            "at": at,
            "authority": operator,
            "offset": self._offset or None,
        }

    def _stamped(self, seq: int, record: dict[str, Any]) -> None:
        body = record["body"]
        refute = self._ledger.refute
        if not body["asked"] <= body["answered"] <= record["at"]:
            times = [body["asked"], body["answered"]]
            refute("V16.head", "not asked, then answered, then recorded", seq, record["at"], times)
        if self._tree is None:  # in an extract nobody can tell whether the root was this log's
            return
        if body["size"] > seq:
            refute("V16.head", "stamps a head that the log did not have yet", seq, seq, body["size"])
            return
        root = self._tree.root_at(body["size"])
        if root.hex() != body["root"]:
            refute("V16.head", "stamps another head than the log had at this size", seq, root.hex(), body["root"])
            return
        if self._client is None:
            return
        origin = f"countermark/{self._state.deployment}/{record['lane']}"
        text = f"{origin}\n{body['size']}\n{base64.b64encode(root).decode()}\n".encode()
        self._token(seq, record, hashlib.sha256(text).digest())

    def _token(self, seq: int, record: dict[str, Any], imprint: bytes) -> None:
        body = record["body"]
        # Who is named like an authority of the auditor must be it; another one is nobody the auditor asked about.
        named = [one for one in self._trusted if one.operator.casefold() == body["authority"].casefold()]
        try:
            token = _read(self._client, body["token"])
        except Malformed as error:
            if named:
                self._ledger.refute("V16.token", f"the token {error}", seq)
            self._others += 1
            return
        found = next((one for one in named or self._trusted if _verified(self._client, token, one)), None)
        if found is None:
            if named:
                message = f"the token is not by a certificate that the auditor has of {body['authority']}"
                self._ledger.refute("V16.token", message, seq)
            self._others += 1
        elif token.imprint != imprint:
            message = "the token is over something else than this head"
            self._ledger.refute("V16.imprint", message, seq, imprint.hex(), token.imprint.hex())
        elif found.own:
            self._own += 1
        else:
            self._accept(seq, record, token, found)

    def _accept(self, seq: int, record: dict[str, Any], token: _Token, stamp: Stamp) -> None:
        body = record["body"]
        last, size = self._times[body["size"] - 1], body["size"]
        if last > token.latest + CLOCK_US_MAX:
            message = f"the record says a time after {moment(token.latest)}, when {stamp.operator} had stamped it"
            self._ledger.refute("V16.time", message, size - 1, token.latest, last)
        if record["at"] < token.earliest - CLOCK_US_MAX:
            message = f"the record holds a token of {moment(token.earliest)} and says an earlier time"
            self._ledger.refute("V16.time", message, seq, token.earliest, record["at"])
        self._accepted += 1
        self._shown(size, token.latest)
        if self._newest is None or size >= self._newest[0]:
            self._newest = (size, token.latest, stamp.operator)
            self._offset = [body["asked"] - token.latest, body["answered"] - token.earliest]


def _read(client: Any, text: str) -> _Token:
    """Raises `Malformed` for anything but a token in strict DER."""
    token = decode64(text)
    length = len(_GRANTED) + len(token)
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    header = bytes((length,)) if length < _LONG_FORM else bytes((_LONG_FORM | len(octets),)) + octets
    try:
        response = client.decode_timestamp_response(b"\x30" + header + _GRANTED + token)
        info = response.tst_info
        accuracy, at = info.accuracy, round(info.gen_time.timestamp()) * _US
        imprint = bytes(info.message_imprint.message)
    except ValueError as error:
        raise Malformed("is not a token in strict DER") from error
    width = (
        0
        if accuracy is None
        else (accuracy.seconds or 0) * _US + (accuracy.millis or 0) * 1_000 + (accuracy.micros or 0)
    )
    if not 0 <= width <= ACCURACY_US_MAX:
        raise Malformed("is not exact to a day")
    # The time is given in seconds, and in a fraction that not every reader keeps: the whole second counts.
    return _Token(response, imprint, at - width, at + _US + width)


def _verified(client: Any, token: _Token, stamp: Stamp) -> bool:
    """Is it signed, for time stamps, by whoever the auditor's certificates lead to, when they were valid?"""
    verifier = client.VerifierBuilder(roots=list(stamp.certificates)).build()
    try:
        verifier.verify(token.response, token.imprint)
    except (client.VerificationError, ValueError):
        return False
    return True


def _client() -> Any:
    try:
        import rfc3161_client
    except ImportError:
        return None
    return rfc3161_client
