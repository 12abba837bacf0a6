"""A served deployment over the Stripe simulator, for tests with real SDKs: nothing of theirs is replaced."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import AGENT, policy_for, records

import countermark
from countermark.authority import build_approval, issue, load_private, sign_approval
from countermark.model.clock import SystemClock
from countermark.server.serve import Listener
from countermark.twins.stripe import StripeTwin
from countermark.wiring import Deployment, TokenFile
from countermark.wiring.init import Made, init_deployment

ACME, BOREALIS, STRANGER = "acct_1AcmePaper", "acct_1BorealisHosting", "acct_stranger"
LOOSE = {"max = 5000000\n": "max = 900000000\n", "max = 3000000\n": "max = 900000000\n", "max = 20\n": "max = 100000\n"}
INVOICE = """
[tool."{tool}".args."metadata[invoice]"]
class = "reference"
alias = "invoice"
required = true
"""
TOOLS = (
    """
[tool."stripe.payment_intents.create"]
connector = "stripe"
once_per = ["invoice", "part"]
"""
    + INVOICE.format(tool="stripe.payment_intents.create")
    + "".join(
        f'\n[tool."stripe.{name}"]\nconnector = "stripe"\n'
        for name in (
            "payment_intents.confirm", "payment_intents.capture", "payment_intents.cancel", "balance.retrieve",
            "transfers.retrieve", "transfers.list", "payment_intents.retrieve",
        )
    )
)  # fmt: skip
CHANGES = """\
@id("intents.change")
permit (principal == Agent::"treasury", action in Action::"change", resource);
"""


@dataclass
class Served:
    """A deployment that listens. ``url`` is the whole server's, ``stripe_url`` the Stripe face's own address."""

    made: Made
    twin: StripeTwin
    deployment: Deployment
    listener: Listener
    token: str

    @property
    def url(self) -> str:
        return self.listener.url

    @property
    def stripe_url(self) -> str:
        return self.listener.stripe_url

    @property
    def root(self) -> Path:
        return self.made.root

    def approve(self, verdict: str = "approve") -> dict[str, Any]:
        """A person answers the only escalation that waits."""
        [raised] = self.deployment.call("escalations", {})
        key = load_private(self.made.people["controller"])
        doc = build_approval(
            raised, deployment=self.made.deployment, ladder="finance", verdict=verdict, person="controller"
        )
        answer: dict[str, Any] = self.deployment.call("answer", sign_approval(doc, key))
        return answer

    def paid(self, invoice: str) -> list[Any]:
        """Movements at the provider for an invoice."""
        return [m for m in self.twin.books().movements() if m.metadata.get("invoice") == invoice]


def make(
    root: Path, twin: StripeTwin, *, tools: str = "", config: str = "", more: Mapping[str, str] | None = None,
    quick: bool = False,
) -> Made:  # fmt: skip
    """A deployment whose Stripe is the simulator, with payment intents and reads beside the template's tools.

    ``quick``: effects wait for an answer for a fraction of a second only.
    """
    files = policy_for(LOOSE)
    files["tools.toml"] += TOOLS + tools
    if quick:
        writes = r'(\[tool\."[^"]+(?:create|confirm|capture|cancel)"\][^\n]*\n)'
        files["tools.toml"] = re.sub(writes, r"\1timeout_ms = 300\n", files["tools.toml"])
    files |= {"policies/intents.cedar": CHANGES, **(more or {})}
    os.environ["STRIPE_API_KEY"] = twin.key
    made = init_deployment(root, "vendor-payments", "test", stripe_origin=twin.url, edit=files)
    with (root / "countermark.toml").open("a", encoding="utf-8") as file:
        file.write(config)
    return made


def token_for(root: Path, agent: str = AGENT) -> str:
    """A fresh token of an agent."""

    def edit(book: Any) -> Any:
        book, _, plain = issue(book, agent, SystemClock().now_us(), life_s=3_600)
        return book, plain

    return str(TokenFile(root).change(edit))


@contextmanager
def serving(made: Made, twin: StripeTwin, token: str = "") -> Iterator[Served]:
    """Own the deployment and listen on free ports."""
    token = token or token_for(made.root)
    with countermark.open(made.root, agent=AGENT, tier="enforcing") as deployment:
        settings = replace(deployment.config.serve, port=0, stripe_port=0)
        with Listener(deployment, settings=settings) as listener:
            yield Served(made, twin, deployment, listener, token)


@contextmanager
def twin_for(folder: Path, **more: Any) -> Iterator[StripeTwin]:
    """A simulator whose clock runs, with the template's accounts and money."""
    accounts = [ACME, BOREALIS, STRANGER, "ba_1OwnBank"]
    with StripeTwin.start(
        folder, seed=5, running=True, accounts=accounts, balances={"eur": 90_000_000}, **more
    ) as twin:
        yield twin
    assert "Traceback" not in (folder / "simulator.log").read_text()


__all__ = ["ACME", "BOREALIS", "STRANGER", "Served", "make", "records", "serving", "token_for", "twin_for"]
