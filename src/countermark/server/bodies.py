"""Request bodies: whole, bounded and strictly decoded before anything looks at them."""

from __future__ import annotations

from typing import Any

from starlette.types import Receive, Scope

from countermark.model.canon import read_json
from countermark.server.problems import HttpError
from countermark.server.surroundings import Headers

JSON = b"application/json"
_CHARSETS = (b"charset=utf-8", b'charset="utf-8"')


class GoneError(ConnectionError):
    """The client went away before its request was whole: nobody hears an answer."""


def header(headers: Headers, name: bytes) -> bytes:
    """The value of a header that stands once, else empty. Raises ``HttpError`` when it stands twice."""
    found = [value for key, value in headers if key == name]
    if len(found) > 1:
        raise HttpError(400, f"the header {name.decode('ascii')} stands twice")
    return found[0] if found else b""


async def read_body(scope: Scope, receive: Receive, bytes_max: int) -> bytes:
    """The whole body. The wire bounds its size and its time already; this holds wherever the app is mounted.

    Raises:
        HttpError: 413.
        GoneError: the client went away.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > bytes_max:
            raise too_large(bytes_max)
        return body
    whole = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise GoneError("the client went away")
        whole += message.get("body", b"")
        if len(whole) > bytes_max:
            raise too_large(bytes_max)
        if not message.get("more_body"):
            return bytes(whole)
        message = await receive()


def too_large(bytes_max: int) -> HttpError:
    """The refusal of a long body."""
    return HttpError(413, f"the body is longer than {bytes_max} bytes", code="body_too_large")


def check_json(headers: Headers) -> None:
    """A body must say that it is JSON, or a browser's form could be one. Raises ``HttpError`` 415."""
    kind, coding = header(headers, b"content-type"), header(headers, b"content-encoding")
    if kind != JSON:
        kind, _, rest = kind.lower().partition(b";")
        if kind.strip() != JSON or (rest.strip() and rest.strip() not in _CHARSETS):
            raise HttpError(415, "the body must be application/json in UTF-8", code="bad_media_type")
    if coding and coding != b"identity":
        raise HttpError(415, "the body must not be compressed", code="bad_media_type")


def read_object(body: bytes, bytes_max: int) -> dict[str, Any]:
    """The JSON object in a body: no floats, no NaN, no key twice. Raises ``EncodingError`` or ``HttpError``."""
    value = read_json(body, bytes_max=bytes_max)
    if type(value) is not dict:
        raise HttpError(400, "the body must be a JSON object", code="bad_encoding")
    return value


async def whole_object(scope: Scope, receive: Receive, bytes_max: int) -> tuple[bytes, dict[str, Any]]:
    """The body as bytes and as an object, in one step."""
    check_json(scope["headers"])
    body = await read_body(scope, receive, bytes_max)
    return body, read_object(body, bytes_max)
