"""RFC 3161 requests and tokens, read by ``rfc3161-client`` (extra ``stamp``), which alone is imported here late.

A token is verified against certificates that configuration pins, never against what it brings along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from countermark.model.clock import US
from countermark.model.errors import ConfigError, CountermarkError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

TOKEN_BYTES_MAX = 24_000  # in base64 it leaves room in a record, which has 65,535 bytes
CERTIFICATES_MAX = 8
ACCURACY_US_MAX = 86_400 * US  # what is less exact than a day is no time stamp

# RFC 3161 section 2.4.2: a response is a sequence of status and token; this is the status `granted`.
_GRANTED = b"\x30\x03\x02\x01\x00"
_SEQUENCE = 0x30
_LONG_FORM = 0x80


class StampError(CountermarkError):
    """An authority of time gave no usable answer. Asked again later."""

    code = "stamp_failed"
    retryable = True


@dataclass(frozen=True, slots=True)
class Stamped:
    """When an authority says that it saw a digest: its clock said something from ``earliest`` to ``latest``, in
    microseconds. RFC 3161 gives the second, and a fraction that not every reader keeps: the whole second counts.
    """

    imprint: bytes
    earliest: int
    latest: int


@dataclass(frozen=True, slots=True)
class Asking:
    """A request for a time stamp over ``text``: ``raw`` goes to the authority."""

    text: bytes
    raw: bytes
    nonce: int


def check_installed() -> None:
    """Raises ``ConfigError`` without the extra."""
    _client()


def ask(text: bytes) -> Asking:
    """Ask for the time of ``text``: SHA-256, a random nonce, the signer's certificate. Raises ``ConfigError``."""
    client = _client()
    builder = client.TimestampRequestBuilder().data(text).hash_algorithm(client.HashAlgorithm.SHA256)
    request = builder.nonce(nonce=True).cert_request(cert_request=True).build()
    return Asking(text, request.as_bytes(), request.nonce)


def accept(asking: Asking, answer: bytes, certificates: Sequence[Certificate]) -> bytes:
    """The token in an authority's answer, verified: for this request, by the pinned certificates.

    Raises:
        StampError: it is refused, malformed, not for this request, or not signed by whom configuration names.
    """
    client = _client()
    response, _ = _decoded(answer)
    builder = client.VerifierBuilder(nonce=asking.nonce, roots=list(certificates))
    try:
        builder.build().verify_message(response, asking.text)
    except (client.VerificationError, ValueError) as error:
        raise StampError(f"the authority's answer does not verify: {_short(error)}") from None
    token: bytes = response.time_stamp_token()
    if len(token) > TOKEN_BYTES_MAX:
        raise StampError(f"the authority's token is longer than {TOKEN_BYTES_MAX} bytes")
    if read_token(token).imprint != sha256(asking.text).digest():  # as everybody else will read it again
        raise StampError("the authority's token is over something else")
    return token


def read_token(token: bytes) -> Stamped:
    """What a token says, believing it. Raises ``StampError``, or ``ConfigError`` without the extra."""
    width, at, imprint = _decoded(_response(token))[1]
    if not 0 <= width <= ACCURACY_US_MAX:
        raise StampError("the token is not exact to a day")
    return Stamped(imprint, at - width, at + US + width)


def read_certificates(pem: bytes) -> tuple[Certificate, ...]:
    """The certificates that an authority's token must lead to. Raises ``ConfigError``."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        found = tuple(load_pem_x509_certificates(pem))
    except ValueError:
        raise ConfigError("not a file of PEM certificates") from None
    if len(found) > CERTIFICATES_MAX:
        raise ConfigError(f"more than {CERTIFICATES_MAX} certificates")
    return found


def _response(token: bytes) -> bytes:
    """A granted response around a token: the form that the reader takes."""
    length = len(_GRANTED) + len(token)
    if length < _LONG_FORM:
        return bytes((_SEQUENCE, length)) + _GRANTED + token
    count = (length.bit_length() + 7) // 8
    return bytes((_SEQUENCE, _LONG_FORM | count)) + length.to_bytes(count, "big") + _GRANTED + token


def _decoded(answer: bytes) -> tuple[Any, tuple[int, int, bytes]]:
    """A granted response; its token's accuracy and time in microseconds, and what it is over."""
    client = _client()
    try:
        response = client.decode_timestamp_response(answer)
        if client.PKIStatus(response.status) != client.PKIStatus.GRANTED:
            said = ", ".join(response.status_string)[:200]
            raise StampError(f"the authority refused: status {response.status} {said!a}")
        info = response.tst_info  # parsed only now, and then it may be malformed
        exact, at = info.accuracy, round(info.gen_time.timestamp()) * US
        width = 0 if exact is None else (exact.seconds or 0) * US + (exact.millis or 0) * 1_000 + (exact.micros or 0)
        return response, (width, at, bytes(info.message_imprint.message))
    except ValueError as error:  # malformed, or a status that nobody defined
        raise StampError(f"the authority's answer cannot be read: {_short(error)}") from None


def _short(error: Exception) -> str:
    return ascii(str(error))[1:201]


def _client() -> Any:
    try:
        import rfc3161_client
        from rfc3161_client import tsp
    except ImportError:
        raise ConfigError("time stamps need the extra `stamp`", hint="pip install 'countermark[stamp]'") from None
    return _Client(rfc3161_client, tsp)


class _Client:
    """The names that are used here, out of two modules of the package."""

    def __init__(self, face: Any, tsp: Any) -> None:
        self.TimestampRequestBuilder = face.TimestampRequestBuilder
        self.HashAlgorithm = face.HashAlgorithm
        self.VerifierBuilder = face.VerifierBuilder
        self.VerificationError = face.VerificationError
        self.decode_timestamp_response = face.decode_timestamp_response
        self.PKIStatus = tsp.PKIStatus
