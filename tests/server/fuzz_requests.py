"""Random requests for ``fuzz.py``: payments and their mutants, damaged bytes, odd headers, lengths and credentials."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bypass"))

from siege import ACME, REFUND, TOOL, args_for

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PRI", "post", "M-SEARCH")
IDS = {
    "action": "act_" + "0" * 32, "run": "run_" + "0" * 32, "escalation": "esc_" + "0" * 32, "kill": "kill_" + "0" * 16,
    "mandate": "sha256:" + "0" * 64,
}  # fmt: skip
GETS = (
    "/v1/actions/{action}", "/v1/actions/{action}/receipt", "/v1/actions/{action}/explanation", "/v1/runs/{run}",
    "/v1/escalations", "/log/checkpoint", "/log/tile/0/000", "/log/tile/1/x001/000.p/7", "/metrics", "/healthz",
    "/openapi.json", "/stripe/v1/transfers", "/stripe/v1/balance", "/mcp", "/escalations/{escalation}", "/", "/v1",
)  # fmt: skip
POSTS = (
    "/v1/actions", "/v1/admissions", *["/v1/runs"] * 3, "/v1/runs/{run}/end", "/v1/actions/{action}/outcome",
    "/v1/kills", "/v1/people/keys", "/v1/people/keys/removals", "/v1/people/absences", "/v1/people/drafts",
    "/v1/people/offers", "/v1/kills/{kill}/clearance", "/v1/mandates", "/v1/mandates/{mandate}/revocation",
    "/v1/escalations/{escalation}/answers", "/stripe/v1/transfers", "/stripe/v1/refunds", "/mcp", "/webhooks/stripe",
    "/hooks/shop",
)  # fmt: skip
WORDS = (
    "run", "call_id", "tool", "args", "reason", "model", "trace", "because", "amount", "currency", "destination", "id",
    "metadata[invoice]", "mandate", "purpose", "outcome", "ref", "output", "kind", "value", "limit", "after", "wait",
    "approval", "key", "sig", "__proto__", "$sd", "amount.value", "", "\x00", "é", "\u202e", "ＡＭＯＵＮＴ",
)  # fmt: skip
NUMBERS = (
    "0",
    "-1",
    "-0",
    "1e2",
    "1.0",
    "NaN",
    "Infinity",
    "00",
    "9007199254740992",
    "9" * 40,
    "1" + "0" * 4_000,
    "0x1",
)
TEXTS = (
    "", "x" * 5_000, "\x00", "\x1f", "\u2028", "\U0001f4b8", "ACCT_1AcmePaper", "acct_1АcmePaper", "acct_1AcmePaper ",
    "../../etc/passwd", "'; drop table record; --", "{{7*7}}", "eur", "EUR", "run_" + "f" * 32, "act_" + "f" * 32,
)  # fmt: skip


class Maker:
    """Makes the bytes of request number n."""

    def __init__(self, seed: int, token: str, host: str) -> None:
        self._seed = seed
        self._token = token
        self._host = host

    def made(self, number: int) -> bytes:
        """One request, or what looks like one."""
        chance = random.Random(f"{self._seed}:{number}")
        kinds: tuple[tuple[int, Callable[[random.Random, int], bytes]], ...] = (
            (12, self._fine),
            (30, self._mutated),
            (14, self._random_json),
            (8, self._bytes),
            (12, self._routed),
            (8, self._framed),
            (8, self._headed),
            (5, self._shown),
            (3, self._junk),
        )
        (kind,) = chance.choices([make for _, make in kinds], [weight for weight, _ in kinds])
        return kind(chance, number)

    def _head(
        self, method: str, target: str, more: Mapping[str, str] | None = None, *, token: str | None = None
    ) -> bytes:
        lines = {"Host": self._host, "Authorization": f"Bearer {token or self._token}"}
        lines |= {"Content-Type": "application/json"} if method not in ("GET", "HEAD") else {}
        lines |= more or {}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{head}".encode("utf-8", "surrogateescape")

    def _sent(self, method: str, target: str, body: bytes, **more: str) -> bytes:
        return self._head(method, target, more) + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def _action(self, chance: random.Random, number: int) -> dict[str, Any]:
        invoice = f"F-{number}" if chance.random() < 0.8 else f"F-{chance.randrange(50)}"
        amount = chance.choice((1, 100, 1_000, 1_000, 600_000, 10**9))
        return {"call_id": f"f{number}", "tool": TOOL, "args": args_for(invoice, amount, ACME)}

    def _fine(self, chance: random.Random, number: int) -> bytes:
        asked = self._action(chance, number)
        if chance.random() < 0.2:
            asked["reason"] = "an\ninvoice é"
        wait = chance.choice(("", "", "", "?wait=outcome", "?wait=decision"))
        return self._sent("POST", "/v1/actions" + wait, json.dumps(asked).encode())

    def _mutated(self, chance: random.Random, number: int) -> bytes:
        """A payment with one to three things wrong, now and then as text that no encoder writes."""
        asked = self._action(chance, number)
        if chance.random() < 0.15:
            asked = {"call_id": f"f{number}", "tool": REFUND, "args": {"amount": 1, "charge": f"ch_{number}"}}
        for _ in range(chance.randrange(1, 4)):
            where: dict[str, Any] = (
                asked["args"] if type(asked.get("args")) is dict and chance.random() < 0.6 else asked
            )
            name = chance.choice((*where, *WORDS)) if chance.random() < 0.8 else chance.choice(WORDS)
            if chance.random() < 0.25:
                where.pop(name, None)
            else:
                where[name] = self._value(chance, 3)
        raw = json.dumps(asked, ensure_ascii=chance.random() < 0.5)
        if chance.random() < 0.3:
            raw = raw.replace("1000", chance.choice(NUMBERS), 1)
        if chance.random() < 0.1:
            raw = raw[:-1] + f', "{chance.choice(WORDS[:8])}": {json.dumps(self._value(chance, 1))}' + "}"
        target = "/v1/admissions" if chance.random() < 0.15 else "/v1/actions"
        return self._sent("POST", target, raw.encode("utf-8", "surrogatepass"))

    def _value(self, chance: random.Random, depth: int) -> Any:
        kind = chance.randrange(9 if depth else 6)
        if kind == 0:
            return chance.choice(TEXTS)
        if kind == 1:
            return chance.choice((0, 1, -1, 2**53, -(2**53), 2**63, 10**30, 1.5, 1e300, float("nan"), float("inf")))
        if kind == 2:
            return chance.choice((None, True, False))
        if kind == 3:
            return "".join(
                chr(chance.choice((chance.randrange(0x20, 0x7F), chance.randrange(0x110000)))) for _ in range(8)
            )
        if kind == 4:
            return chance.choice((*IDS.values(), TOOL, ACME, "eur"))
        if kind == 5:
            return chance.choice((1, 100, "1", "1000"))
        if kind == 6:
            return [self._value(chance, depth - 1) for _ in range(chance.randrange(4))]
        if kind == 7:
            return {chance.choice(WORDS): self._value(chance, depth - 1) for _ in range(chance.randrange(4))}
        nest: Any = {}
        for _ in range(chance.randrange(200)):
            nest = [nest] if chance.random() < 0.5 else {"a": nest}
        return nest

    def _random_json(self, chance: random.Random, number: int) -> bytes:
        target = chance.choice(POSTS).format(**IDS)
        raw = json.dumps(self._value(chance, 4), ensure_ascii=False).encode("utf-8", "surrogatepass")
        if chance.random() < 0.4:
            names = chance.sample(WORDS[:30], chance.randrange(1, 5))
            raw = json.dumps({name: self._value(chance, 2) for name in names}).encode()
        return self._sent("POST", target, raw)

    def _bytes(self, chance: random.Random, number: int) -> bytes:
        """A body that was damaged: flipped, cut, doubled, not UTF-8, a bomb of brackets."""
        raw = bytearray(json.dumps(self._action(chance, number)).encode())
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(raw) or 1)
            how = chance.randrange(6)
            if how == 0 and raw:
                raw[at] = chance.randrange(256)
            elif how == 1:
                raw[at:at] = chance.randbytes(chance.randrange(1, 9))
            elif how == 2:
                del raw[at : at + chance.randrange(1, 30)]
            elif how == 3:
                raw[at:at] = raw[: chance.randrange(len(raw) + 1)]
            elif how == 4:
                raw[at:at] = chance.choice(
                    (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\\ud800", b"\x00", b"\xef\xbb\xbf")
                )
            else:
                raw = bytearray(chance.choice((b"[", b'{"a":', b'"', b"1")) * chance.randrange(1, 9_000))
        body = bytes(raw)
        return self._sent(
            "POST", chance.choice(("/v1/actions", "/v1/actions", chance.choice(POSTS).format(**IDS))), body
        )

    def _routed(self, chance: random.Random, number: int) -> bytes:
        """Methods and addresses, right and strange."""
        target = chance.choice((*GETS, *POSTS)).format(**IDS)
        for _ in range(chance.randrange(3)):
            at = chance.randrange(len(target) + 1)
            extra = chance.choice(
                (
                    "/",
                    "..",
                    "%2e",
                    "%00",
                    "%",
                    "?",
                    "#",
                    ";",
                    "//",
                    "\\",
                    "%c3%a9",
                    "x",
                    "?wait=",
                    "&a=b",
                    "?limit=5&after=1",
                    "?after=" + "9" * 20,
                    ":",
                    "%2f",
                    "\x7f",
                    "é",
                    " ",
                    "\t",
                )
            )
            target = target[:at] + extra + target[at:]
        method = chance.choice(METHODS) if chance.random() < 0.5 else "GET"
        return self._sent(method, target, chance.choice((b"", b"", b"{}")))

    def _framed(self, chance: random.Random, number: int) -> bytes:
        """What a body's length may be said to be, in chunks and otherwise, and a payment behind it."""
        body = json.dumps(self._action(chance, number)).encode()
        size = chance.choice(
            (b"%x", b"%X", b"0%x", b"%x;a=b", b"%x ", b" %x", b"+%x", b"0x%x", b"-%x", b"%x;" + b"e" * 9_000)
        )
        lengths = (
            b"%d" % len(body),
            b"%d" % (len(body) - 1),
            b"%d" % (len(body) + 9),
            b"-1",
            b"+5",
            b"0x10",
            b"1,1",
            b"",
            b"9" * 30,
            b"5 5",
        )
        codings = (
            b"chunked",
            b"Chunked",
            b"gzip, chunked",
            b"chunked, chunked",
            b"identity",
            b"xchunked",
            b"\x0bchunked",
            b"",
        )
        lines = [b"Content-Length: " + chance.choice(lengths)] * chance.randrange(3)
        names = (b"Transfer-Encoding: ", b"Transfer-Encoding : ", b"Transfer-Encoding:")
        lines += [chance.choice(names) + chance.choice(codings) for _ in range(chance.randrange(3))]
        chance.shuffle(lines)
        half = chance.randrange(len(body))
        chunks = b"".join((size % len(part)) + b"\r\n" + part + b"\r\n" for part in (body[:half], body[half:]) if part)
        end = chance.choice((b"0\r\n\r\n", b"0\r\nX-Trailer: y\r\n\r\n", b"0\r\n", b"", b"00\r\n\r\n", b"\r\n"))
        sent = chance.choice((body, chunks + end, chunks, chunks + end + b"junk"))
        hidden = {"call_id": f"hidden{number}", "tool": TOOL, "args": args_for(f"HIDDEN-{number}")}
        behind = self._sent("POST", "/v1/actions", json.dumps(hidden).encode()) if lines else b""
        marked = (
            behind if any(b"Content" in line for line in lines) and any(b"Transfer" in line for line in lines) else b""
        )
        return self._head("POST", "/v1/actions") + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + sent + marked

    def _headed(self, chance: random.Random, number: int) -> bytes:
        """Odd headers around a payment."""
        body = json.dumps(self._action(chance, number)).encode()
        types = (
            "text/plain",
            "application/json; charset=latin-1",
            "application/x-www-form-urlencoded",
            "",
            "APPLICATION/JSON",
            "application/json;charset=UTF-8",
            "multipart/form-data; boundary=x",
            "application/json, text/plain",
        )
        odd: tuple[tuple[str, str], ...] = (
            ("Content-Type", chance.choice(types)),
            ("Content-Encoding", chance.choice(("gzip", "br", "identity", "deflate"))),
            ("Expect", chance.choice(("100-continue", "200-maybe"))),
            ("Connection", chance.choice(("close", "upgrade", "x"))),
            ("Upgrade", "websocket"),
            ("Host", chance.choice(("evil.example", "", "localhost:99999", "127.0.0.1@evil", "[::1]"))),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("Origin", "https://evil.example"),
            ("Cookie", "a=" + "b" * chance.randrange(20_000)),
            ("Range", "bytes=0-1"),
            ("If-None-Match", "*"),
            ("A B", "x"),
            ("Idempotency-Key", "x" * 300),
            ("X\x00", "y"),
            ("X-Nul", "a\x00b"),
            ("Trailer", "X"),
            ("TE", "trailers"),
            ("Accept-Encoding", "gzip"),
            ("Accept", "text/html"),
            ("É", "é"),
            ("", "x"),
            ("X-Fold", "a\r\n b"),
        )
        more = dict(chance.sample(odd, chance.randrange(1, 5)))
        raw = self._head("POST", "/v1/actions", more)
        if chance.random() < 0.2:
            raw += b"".join(b"X-%d: y\r\n" % n for n in range(chance.randrange(120)))
        return raw + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def _shown(self, chance: random.Random, number: int) -> bytes:
        """Credentials that are none."""
        body = json.dumps({"call_id": f"stolen{number}", "tool": TOOL, "args": args_for(f"STOLEN-{number}")}).encode()
        wrong = self._token[:-1] + ("0" if self._token[-1] != "0" else "1")
        values = (
            "",
            "Bearer",
            "Bearer ",
            f"Bearer {wrong}",
            f"Bearer {self._token} x",
            f"Bearer  {self._token}x",
            "Basic " + "A" * 40,
            f"bearer {wrong}",
            "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0cmVhc3VyeSJ9.",
            "Countermark-Pass e30=",
            "\xff",
            f"Digest {self._token}",
            "Bearer " + "a" * 9_000,
            "Bearer a.b.c",
            "Basic Og==",
        )
        more = {"Authorization": chance.choice(values)}
        if chance.random() < 0.3:
            more["Signature-Input"] = chance.choice(("sig1=()", 'sig1=("@method");created=1', "x", "sig1=" + "(" * 500))
            more["Signature"] = chance.choice(("sig1=:AAAA:", "sig1=::", "x"))
        return self._head("POST", "/v1/actions", more) + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def _junk(self, chance: random.Random, number: int) -> bytes:
        raw = chance.randbytes(chance.randrange(1, 400))
        if chance.random() < 0.5:
            fine = bytearray(self._fine(chance, number).replace(b"/v1/actions", b"/v1/nothing"))
            for _ in range(chance.randrange(1, 8)):
                fine[chance.randrange(len(fine))] = chance.randrange(256)
            raw = bytes(fine)
        return raw
