"""A deployment for the command line's tests: owned by this process, so that commands are its clients."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from countermark.cli import main
from countermark.connectors import NoopConnector
from countermark.model.tool import ToolSpec
from countermark.model.values import Outcome, Request
from countermark.policy import template_files
from countermark.wiring.connectors import drafts
from countermark.wiring.deployment import Deployment, open_deployment
from countermark.wiring.init import Made, init_deployment

TOOL = "stripe.transfers.create"


class Provider(NoopConnector):
    """Confirms everything but invoices that begin with FAIL (refused) or LOST (no answer)."""

    name = "stripe"

    def __init__(self) -> None:
        super().__init__(drafts()["stripe"])

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        if b"FAIL" in request.body:
            return Outcome("failed", "provider_refused", http_status=402)
        if b"LOST" in request.body:
            return Outcome("unknown", "timeout")
        return super().execute(tool, request)

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        return Outcome("unknown", "timeout")


@dataclass
class Bench:
    """A deployment and how to run commands on it."""

    made: Made
    handle: Deployment

    def run(self, *words: str, stdin: str | None = None) -> Result:
        """One command on this deployment."""
        return run("-C", str(self.made.root), *words, stdin=stdin)

    def key(self, person: str) -> str:
        return str(self.made.people[person])

    def act(self, call: str, amount: Any = 48_000, account: str = "acct_1AcmePaper", **more: Any) -> Result:
        """Ask for a transfer; ``--json``."""
        args = {"amount": amount, "currency": "eur", "destination": account, "metadata[invoice]": call}
        action = {"call_id": call, "tool": TOOL, "args": args, **more}
        return self.run("act", "-", "--json", stdin=json.dumps(action))


def run(*words: str, stdin: str | None = None) -> Result:
    """One command, in this process."""
    return CliRunner().invoke(main, list(words), input=stdin, prog_name="countermark")


def ok(result: Result, code: int = 0) -> str:
    """Standard output of a command that ended with ``code``."""
    if result.exit_code != code:
        raise AssertionError(
            f"exit {result.exit_code}, not {code}: {result.stdout}\n{result.stderr}"
        ) from result.exception
    return result.stdout


def document(result: Result, code: int = 0) -> Any:
    """The one JSON document of a command that ended with ``code``."""
    return json.loads(ok(result, code))


BANK = """
[workflows.sources.bank]
kind = "webhook"
scheme = "standard"
secret = "env:BANK_SECRET"
key = "/key"
"""


@cache
def bench() -> Bench:
    """One deployment for all tests of this process; it lives as long as the process."""
    folder = tempfile.mkdtemp(prefix="countermark-cli-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    root = Path(folder) / "deployment"
    provider = {"stripe": Provider()}
    limits = template_files("vendor-payments")["limits.toml"].replace("max = 20\n", "max = 2000\n")  # calls an hour
    made = init_deployment(root, "vendor-payments", "acme", connectors=provider, edit={"limits.toml": limits})
    with (root / "countermark.toml").open("a") as file:
        file.write(BANK)
    return Bench(made, open_deployment(root, agent="treasury", connectors=provider))


def fresh(folder: Path) -> Made:
    """A deployment that nobody owns."""
    return init_deployment(folder / "deployment", "vendor-payments", "acme")
