"""A served deployment whose tools are an MCP server's, and clients of the official SDK in front of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "connectors"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from mcp_support import Upstream
from support import policy_for

import countermark
from countermark.gate import Caller
from countermark.model.errors import AuthorityError
from countermark.server import Listener
from countermark.wiring import ServeSettings
from countermark.wiring.init import Made, init_deployment
from countermark.wiring.mcp_init import ask_server, write_offer

AGENT, TOKEN = "treasury", "cmk_canary_of_the_agent"
CLASSES = {
    '"shop.echo"': "read", '"shop.note"': "change", '"shop.pay"': "money",
}  # fmt: skip
ARGUMENTS = {"amount.value": "amount", "amount.currency": "currency", "to": "payee", "invoice": "reference"}
POLICY = """
@id("shop.notes")
permit (principal, action == Action::"shop.note", resource);

@id("shop.notes_about_people")
@escalate("finance")
forbid (principal, action == Action::"shop.note", resource)
when { context has args.topic && context.args.topic == "people" };

@id("shop.no_secrets")
forbid (principal, action == Action::"shop.note", resource)
when { context has args.topic && context.args.topic == "secret" };
"""


class OneToken:
    """Knows one agent by one token; how agents are really known is another room's matter."""

    async def authenticate(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> Caller:
        if dict(headers).get(b"authorization") != b"Bearer " + TOKEN.encode():
            raise AuthorityError("the credential is not valid here", code="not_authenticated")
        return Caller(AGENT, "enforcing")


def classified(text: str, keep_denied: Sequence[str] = ()) -> str:
    """The drafts as people complete them: every class said, ``denied`` taken out."""
    lines: list[str] = []
    tool, kept = "", False
    for line in text.splitlines():
        if line.startswith("[tool.") and ".args." not in line:
            tool = line[len("[tool.") : -1]
        kept = tool in keep_denied or tool not in CLASSES
        if line.startswith("denied") and not kept:
            continue
        if line.startswith("# class") and kept:
            continue
        if line.startswith("# class") and ".args." not in lines_head(lines):
            lines.append(f'class = "{CLASSES[tool]}"')
            if CLASSES[tool] == "money":
                lines.append('once_per = ["payee", "invoice"]')
        elif line.startswith("# class"):
            name = lines_head(lines).split(".args.")[1].strip('"]')
            lines.append(f'class = "{ARGUMENTS.get(name, "inert")}"')
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def lines_head(lines: Sequence[str]) -> str:
    """The header of the table that a line belongs to."""
    return next(line for line in reversed(lines) if line.startswith("["))


class Shop:
    """A deployment over the small MCP server, served over HTTP."""

    def __init__(self, root: Path, keep_denied: Sequence[str] = (), command: Sequence[str] = ()) -> None:
        self.upstream = Upstream(root / "upstream")
        words = command or self.upstream.command
        offer = ask_server("shop", " ".join(words), {}, "", root)
        files = policy_for({})
        files["tools.toml"] += "\n" + classified(offer.text, keep_denied)
        if '"shop.note"' not in keep_denied:  # a denied tool is no action of the policy, so no rule may name it
            files["policies/shop.cedar"] = POLICY
        (self.upstream.folder / "log").write_text("")
        self.root = root / "deployment"
        self.made: Made = init_deployment(self.root, edit=files)
        config = self.root / "countermark.toml"
        write_offer(self.root, offer)
        tools = self.root / "policy" / "tools.toml"
        tools.write_text(files["tools.toml"])  # the offer was in the policy from the first activation on
        assert "[connector.shop]" in config.read_text()
        self.handle = countermark.open(self.root, agent=AGENT, tier="enforcing")
        self.listener = Listener(self.handle, OneToken(), ServeSettings(port=0))
        self.url = self.listener.start()

    def close(self) -> None:
        self.listener.stop()
        self.handle.close()

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @asynccontextmanager
    async def client(self, token: str = TOKEN, **options: Any) -> AsyncIterator[Any]:
        """The official SDK's client on ``/mcp``."""
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=20) as http,
            Client(streamable_http_client(self.url + "/mcp", http_client=http), **options) as client,
        ):
            yield client
