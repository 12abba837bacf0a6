"""What pages load: one style sheet, one script of ours, htmx, a mark. Each under a name that holds its digest."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from countermark.server.console.visit import Reply
from countermark.server.console.words import content_tag

FOLDER = "/assets"
HTMX = "htmx-2.0.11.min.js"
KINDS: Mapping[str, bytes] = {
    "console.css": b"text/css; charset=utf-8",
    "console.js": b"text/javascript; charset=utf-8",
    HTMX: b"text/javascript; charset=utf-8",
    "mark.svg": b"image/svg+xml",
    "upload.js": b"text/javascript; charset=utf-8",
}
_FOREVER = b"public, max-age=31536000, immutable"


class Assets:
    """The files, read once."""

    def __init__(self) -> None:
        folder = files(__package__) / "static"
        self._replies: dict[str, tuple[Reply, bytes]] = {}
        self.urls: dict[str, str] = {}
        for name, kind in KINDS.items():
            body = (folder / name).read_bytes()
            tag = content_tag(body)
            stem, _, ending = name.rpartition(".")
            served = f"{stem}.{tag}.{ending}"
            etag = b'"' + tag.encode("ascii") + b'"'
            self._replies[served] = (Reply(200, body, ((b"cache-control", _FOREVER), (b"etag", etag)), kind), etag)
            self.urls[name] = f"{FOLDER}/{served}"

    def reply(self, name: str, seen: bytes) -> Reply | None:
        """The answer for a name with its digest, or that the browser has it already; None for another name."""
        found = self._replies.get(name)
        if found is None:
            return None
        reply, etag = found
        return Reply(304, b"", reply.headers, reply.kind) if seen == etag else reply
