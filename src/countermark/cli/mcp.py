"""``mcp``: the gate as an MCP server on standard input and output, in front of the tools of any other."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import Here, pass_here
from countermark.model.errors import AuthorityError, ConfigError

if TYPE_CHECKING:
    from countermark.wiring import Config


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--agent", metavar="NAME", required=True, help="In whose name the client asks.")
@click.option(
    "--url", metavar="URL", default="", help="Where `countermark serve` is reached, for clients that show it."
)
@click.argument("command", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@pass_here
def mcp(here: Here, agent: str, url: str, command: tuple[str, ...]) -> None:
    """Serve one MCP client on standard input and output: put this where its configuration starts a server.

    COMMAND is a server's own command, after --: it must be exactly the command of a connector in countermark.toml, and
    then only that server's tools are offered. Without it, all tools that the agent's mandate covers are. The server
    is started by whoever owns the deployment, never by the client, and no credential reaches the client.
    """
    if find_spec("mcp") is None or find_spec("starlette") is None:
        raise ConfigError(
            "this needs the extra [mcp]: the MCP SDK is not installed", code="missing_extra",
            hint="Install it: `uv add 'countermark[mcp]'`, or `pip install 'countermark[mcp]'`.",
        )  # fmt: skip
    import anyio.to_thread

    from countermark.server import PAGE, Party, serve_stdio
    from countermark.wiring import open_deployment

    config = here.config()
    connector = _connector(config, command)
    base = url.rstrip("/")
    with open_deployment(config.root, agent=agent) as handle:
        handle.call("tool.shape", {"tool": ""})  # a deployment without a policy says so before a client is served

        async def ask(op: str, body: Mapping[str, Any]) -> Any:
            return await anyio.to_thread.run_sync(handle.call, op, body, agent)

        page = (lambda escalation: f"{base}{PAGE}{escalation}") if base else None
        serve_stdio(Party(agent, ask, connector=connector, page=page))


def _connector(config: Config, command: tuple[str, ...]) -> str:
    """The connector whose server a command would start. Raises ``AuthorityError``."""
    if not command:
        return ""
    for name, settings in config.mcp.items():
        if settings.command == command:
            return name
    raise AuthorityError(
        "this command is not that of a connector in countermark.toml",
        hint="People add servers: `countermark init DIR --from-mcp COMMAND`.",
    )
