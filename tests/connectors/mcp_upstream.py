"""A small MCP server for tests, over a pipe: what it offers and how it misbehaves stands in files of its folder.

`tools.json` is what it lists, `mood` how it answers calls (empty: well), `log` every line that it received, `env` its
environment. It reads both files anew for each message, so that a test changes them while it runs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

DIR = Path(sys.argv[1] if len(sys.argv) > 1 else ".")


def said(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def raw(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def call(id_: Any, params: dict[str, Any]) -> None:
    mood = (DIR / "mood").read_text() if (DIR / "mood").exists() else ""
    name, arguments = params["name"], params["arguments"]
    done = {
        "content": [{"type": "text", "text": f"{name} done"}],
        "structuredContent": {"ref": "r-1", "got": arguments},
    }
    if mood == "crash":
        os._exit(3)
    if mood == "hang":
        time.sleep(60)
    if mood == "garbage":
        raw("this is no JSON\n")
    elif mood == "oversize":
        raw('{"jsonrpc": "2.0", "id": "' + "x" * (2 << 20) + '"}\n')
    elif mood == "endless":
        raw("x" * (2 << 20))
    elif mood == "deep":
        raw(f'{{"jsonrpc": "2.0", "id": "{id_}", "result": {"[" * 5_000 + "]" * 5_000}}}\n')
    elif mood == "twice":
        raw(f'{{"jsonrpc": "2.0", "id": "{id_}", "result": {{"content": []}}, "result": {{"content": []}}}}\n')
    elif mood == "stranger":
        said({"id": "somebody-elses", "result": done})
    elif mood == "flood":
        raw('{"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}\n' * 20_000)
    elif mood == "no_content":
        said({"id": id_, "result": {"structuredContent": {}}})
    elif mood == "asks_more":
        said({"id": id_, "result": {"resultType": "input_required", "requestState": "x"}})
    elif mood == "tool_error":
        said({"id": id_, "result": {"content": [{"type": "text", "text": "no funds"}], "isError": True}})
    elif mood == "refused":
        said({"id": id_, "error": {"code": -32602, "message": "no such argument"}})
    elif mood == "broken":
        said({"id": id_, "error": {"code": -32603, "message": "something broke"}})
    elif mood == "demands":
        said({"id": "s-1", "method": "sampling/createMessage", "params": {"messages": []}})
        said({"id": "s-2", "method": "ping"})
        said({"id": id_, "result": done})
    else:
        said({"id": id_, "result": done})


def main() -> None:
    (DIR / "env").write_text(json.dumps({"env": dict(os.environ), "cwd": os.getcwd()}))
    listed = 0
    for line in sys.stdin:
        with (DIR / "log").open("a") as log:
            log.write(line)
        message = json.loads(line)
        method, id_ = message.get("method"), message.get("id")
        if method == "initialize":
            info = {"name": "upstream", "version": "1"}
            capabilities = {"tools": {"listChanged": True}}
            said(
                {
                    "id": id_,
                    "result": {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info},
                }
            )
        elif method == "tools/list":
            listed += 1
            said({"id": id_, "result": {"tools": json.loads((DIR / "tools.json").read_text())}})
            change = DIR / f"after-list-{listed}.json"
            if change.exists():  # the tools change right after they were listed, and the server says so
                (DIR / "tools.json").write_text(change.read_text())
                said({"method": "notifications/tools/list_changed"})
                (DIR / "changed").write_text("")
        elif method == "tools/call":
            call(id_, message["params"])


if __name__ == "__main__":
    main()
