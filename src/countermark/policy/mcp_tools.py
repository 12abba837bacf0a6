"""Tools of MCP servers in ``tools.toml``: pinned to the definition that people saw, and drafts that stay denied."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace

from countermark.model.tool import ToolSpec
from countermark.policy.findings import Findings
from countermark.policy.toml import Table

ENCODING = "mcp-v1"
PIN_HEADER = "Mcp-Tool-Digest"
PIN = re.compile(r"sha256:[0-9a-f]{64}")

_NESTED = re.compile(r"[A-Za-z0-9_$-]{1,64}(\.[A-Za-z0-9_$-]{1,64}){0,3}")
_ENDPOINT = re.compile(r"POST mcp://([a-z0-9][a-z0-9-]{0,39})/tools/call/[A-Za-z0-9_.~%-]{1,384}")


def pinned(table: Table, tool: ToolSpec) -> ToolSpec:
    """The tool with its pin as the one header of its request; what is wrong goes to the findings.

    So the request's digest, and with it every approval, covers what the tool was when people wrote the policy.
    """
    pin = table.text("pin", form=PIN, form_hint="It is the digest that `countermark init --from-mcp` writes.")
    if tool.headers:
        table.error("headers", "bad_value", "a tool of an MCP server has no headers of its own")
    found = _ENDPOINT.fullmatch(tool.endpoint)
    if tool.endpoint and (found is None or found.group(1) != tool.connector):
        table.error("endpoint", "bad_value", "this is not the endpoint of a tool of an MCP server",
                    f'Write "POST mcp://{tool.connector}/tools/call/NAME", NAME percent-encoded.')  # fmt: skip
    if tool.recovery == "idempotent" or (tool.recovery == "lookup" and tool.class_ != "read"):
        table.error("recovery", "bad_value", "an MCP server neither keeps keys nor can be asked what it did",
                    'Say recovery = "escalate": people settle what stays unknown.')  # fmt: skip
    _check_names(table, tool)
    recovery = tool.recovery if tool.class_ != "read" or "recovery" in table else "lookup"
    return replace(tool, headers=((PIN_HEADER, pin),), recovery=recovery)


def _check_names(table: Table, tool: ToolSpec) -> None:
    names = {arg.name for arg in tool.args}
    for name in sorted(names):
        parts = name.split(".")
        if _NESTED.fullmatch(name) is None:
            table.error("args", "bad_name", f"{name[:70]!r} cannot be a member of an MCP tool's arguments",
                        "Up to four parts of A-Z a-z 0-9 _ $ - with dots between them.")  # fmt: skip
        elif any(".".join(parts[:end]) in names for end in range(1, len(parts))):
            table.error("args", "ambiguous", f"{name!r} opens an object where another argument stands")


def denied(table: Table, read: Callable[[Table], ToolSpec | None]) -> None:
    """A drafted tool that nobody may use yet: what it still lacks becomes warnings, and it is left out."""
    source = copy.copy(table.source)
    source.findings = Findings()
    given = {key: value for key, value in table.value.items() if key != "denied"}
    if "class" not in given:  # as the class that asks for least, or one missing word would look like many
        table.warn("", "missing_key", f"{table.label} needs 'class': read, change or money")
    read(Table(source, table.path, {"class": "read", **given}))
    lacks = source.findings.errors
    for finding in lacks:
        table.source.findings.warn(finding.file, finding.line, finding.code, finding.message, finding.hint)
    count = len(lacks) + ("class" not in given)
    left = f"{count} to mend first" if count else "nothing is missing"
    table.warn("denied", "denied", f"{table.path[-1]} is denied: {left}",
               "Take the line `denied = true` out to let the policy decide about it.")  # fmt: skip
