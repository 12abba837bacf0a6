"""Run one of the examples from nothing: a deployment over simulators, the workflow, people's answers, the evidence.

    uv run python examples/run.py vendor-invoice

Everything goes through the product's own commands, which are printed as they are typed. Nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from countermark.twins.stripe import StripeTwin

HERE = Path(__file__).resolve().parent
ANVIL = HERE.parent / "tests" / "npm" / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
ANVIL_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # anvil gives it to everybody
ACCOUNTS = ("acct_1AcmePaper", "acct_1BorealisHosting", "acct_1Ana", "acct_1Chen", "acct_1Dana")
TRIES_MAX = 60
BOOKS = {"provider-book": "PROVIDER_BOOK_SECRET", "own-ledger": "OWN_LEDGER_SECRET"}
SECRETS = {variable: f"the secret of {source}" for source, variable in BOOKS.items()}
SOURCES = "".join(
    f"""
[workflows.sources.{name}]
kind = "webhook"
scheme = "hmac"
secret = "env:{variable}"
header = "X-Book-Signature"
event = "/id"
key = "/key"
keep = {{ rows = "/rows" }}
"""
    for name, variable in BOOKS.items()
)


class Stage:
    """A deployment in ``folder``, served; ``cli`` are its commands."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.root = folder / "deployment"
        self.env = {**os.environ, **env}
        self.url = ""

    def cli(self, *words: str | Path, expect: tuple[int, ...] = (0,), quiet: bool = False) -> str:
        """One command of the product; its output is printed, and answered. Ends the script when it should not fail."""
        typed = [str(word) for word in words]
        if not quiet:
            print(f"\n$ countermark {shlex.join(typed)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "countermark.cli", "-C", str(self.root), *typed],
            env=self.env, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if not quiet:
            print(done.stdout, end="", flush=True)
        if done.returncode not in expect:
            sys.exit(f"the exit code is {done.returncode}")
        return done.stdout

    def json(self, *words: str | Path, expect: tuple[int, ...] = (0,), told: bool = False) -> Any:
        """What a command says to programs; ``told``: with the line that is typed."""
        if told:
            print(f"\n$ countermark {shlex.join(map(str, words))} --json", flush=True)
        return json.loads(self.cli(*words, "--json", expect=expect, quiet=True))

    @contextmanager
    def served(self) -> Iterator[None]:
        """The gate serves, as it would in production: it alone has the provider's key."""
        command = [sys.executable, "-m", "countermark.cli", "-C", str(self.root), "serve", "--port", "0", "--json"]
        print("\n$ countermark serve --port 0 &", flush=True)
        with (self.folder / "serve.log").open("w") as log:
            gate = subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = gate.stdout.readline() if gate.stdout else ""
            if not line:
                sys.exit((self.folder / "serve.log").read_text())
            self.url = json.loads(line)["url"]
            yield
        finally:
            gate.terminate()
            gate.wait(30)
            if gate.stdout:
                gate.stdout.close()

    def run(self, name: str, inputs: Mapping[str, Any], *more: str, expect: tuple[int, ...] = (0, 4)) -> str:
        """``countermark run``; answers the run's ID."""
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(inputs))
        words = ("run", HERE / f"{name}.yaml", "--agent", "treasury", "--inputs", file, *more)
        return re.findall(r"run_[A-Za-z0-9]+", self.cli(*words, expect=expect))[0]

    def approve(self) -> None:
        """The controller says yes to whatever waits, with a key that ``init`` made."""
        key = self.root / "people" / "controller.pem"
        for parked in self.json("approvals", "list", told=True):
            self.cli("approvals", "approve", parked["escalation"], "--person", "controller", "--key", key, "--yes")

    def over(self, run: str, expect: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Wait until a run is over; its outputs."""
        self.cli("runs", "show", run, "--wait", expect=expect)
        shown: dict[str, Any] = self.json("runs", "show", run)
        return dict(shown["outputs"])

    def evidence(self) -> None:
        """Export the pack, write down what an auditor knows apart from it, and verify: ends the script unless verified.

        In life the keys come from the people, and heads were kept before.
        """
        pack, trust = self.folder / "evidence.zip", self.folder / "trust.json"
        status, made = self.json("status"), self.json("export", pack, "--force", told=True)
        doc = {
            "v": 1, "log": {"origin": status["log"], "keys": [status["log_key"]]}, "people": status["people"],
            "heads": [{"size": made["size"], "root": made["root"], "source": "printed by the export"}],
        }  # fmt: skip
        trust.write_text(json.dumps(doc, indent=1))
        self.cli("verify", pack, "--trust", trust)


def vendor_invoice(stage: Stage, twin: Any) -> None:
    run = stage.run("vendor-invoice", given("vendor-invoice"), "--event", "INV-2077")
    stage.approve()
    stage.over(run)
    stage.run("vendor-invoice", given("vendor-invoice"), "--event", "INV-2077")  # the same invoice starts nothing
    wrong = given("vendor-invoice")
    wrong["invoice"]["number"] = "INV-2078"
    wrong["receipt"]["lines"][0]["quantity"] = 399
    stage.run("vendor-invoice", wrong, expect=(6,))


def payroll(stage: Stage, twin: StripeTwin) -> None:
    first = stage.over(stage.run("payroll", given("payroll")))
    print(f"\nNot paid: {', '.join(first['not_paid'])}. Ben's account is opened now, and the payroll is run again.")
    twin.seed(accounts=["acct_1Ben"])
    stage.run("payroll", given("payroll"), "-i", f"paid_before={json.dumps(first['paid'])}")


def refund(stage: Stage, twin: StripeTwin) -> None:
    intent = provider(twin, "/v1/payment_intents", {"amount": 5_000, "currency": "eur"})  # a customer pays 50.00 EUR
    intent = provider(twin, f"/v1/payment_intents/{intent['id']}/confirm", {"payment_method": "pm_card_visa"})
    charge = {"id": intent["latest_charge"], "amount": 5_000, "refunded": 0}
    run = stage.run("refund", {"charge": charge, "amount": 1_200})
    stage.approve()
    stage.over(run)
    stage.run("refund", {"charge": charge, "amount": 5_001}, expect=(6,))


def order(stage: Stage, twin: Any) -> None:
    stage.run("order", given("order"))
    print("\nBen has no account yet: the next order's maker cannot be paid, and the hold on the card is undone.")
    late = {**given("order"), "number": "O-18", "maker": {"account": "acct_1Ben", "percent": 80}}
    stage.run("order", late, expect=(6,))


def treasury_sweep(stage: Stage, twin: Any) -> None:
    run = stage.run("treasury-sweep", given("treasury-sweep"))
    stage.approve()
    stage.over(run)


def month_end(stage: Stage, twin: StripeTwin) -> None:
    for number in range(1_000):
        form = {"amount": 1_000 + number, "currency": "eur", "destination": ACCOUNTS[0], "metadata[row]": f"R{number}"}
        provider(twin, "/v1/transfers", form)
    book = [f"{row['metadata']['row']} {row['amount']}" for row in every(twin, "/v1/transfers")]
    ledger = [row for row in book if row != "R77 1077"]
    ledger[ledger.index("R505 1505")] = "R505 1550"  # digits swapped
    ledger.append("R1000 250")  # entered, never moved
    month = "2026-12-01"
    run = stage.run("month-end", {"month": month})
    for source, rows in (("provider-book", book), ("own-ledger", ledger)):
        for digit in range(10):
            page = [row for row in rows if row.split()[0].endswith(str(digit))]
            deliver(stage, source, {"id": f"{month}-{digit}", "key": f"{month}/{digit}", "rows": page})
    print("\nBoth books are delivered. Differences go to people.", flush=True)
    for _ in range(TRIES_MAX):  # each asks the gate, and takes a moment
        if stage.json("approvals", "list"):
            break
    stage.approve()
    stage.over(run)


def chase_and_pay(stage: Stage, twin: Any) -> None:
    token = stage.folder / "clerk.token"
    stage.cli("token", "issue", "clerk", "--out", token)
    run = stage.run("chase-and-pay", given("chase-and-pay"))
    steps = stage.json("runs", "show", run)["steps"]
    boundary = next(row["other"] for row in steps if row["kind"] == "agent")
    print(f"\n$ python examples/agent.py {stage.url} {token} {boundary}", flush=True)
    subprocess.run([sys.executable, str(HERE / "agent.py"), stage.url, str(token), boundary], check=True)
    stage.over(run)


EXAMPLES: Mapping[str, Callable[[Stage, Any], None]] = {
    "vendor-invoice": vendor_invoice, "payroll": payroll, "refund": refund, "order": order,
    "treasury-sweep": treasury_sweep, "month-end": month_end, "chase-and-pay": chase_and_pay,
}  # fmt: skip


def given(name: str) -> dict[str, Any]:
    """The inputs that an example is started with."""
    found: dict[str, Any] = json.loads((HERE / "inputs" / f"{name}.json").read_text())
    return found


def provider(twin: StripeTwin, path: str, form: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What somebody else does at the provider, without the gate: a customer who pays, a book that is read."""
    body = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(twin.url + path, body, {"Authorization": f"Bearer {twin.key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def every(twin: StripeTwin, path: str) -> list[dict[str, Any]]:
    """A whole list of the provider's, page by page."""
    rows: list[dict[str, Any]] = []
    more = True
    while more:
        after = f"&starting_after={rows[-1]['id']}" if rows else ""
        page = provider(twin, f"{path}?limit=100{after}")
        rows, more = [*rows, *page["data"]], page["has_more"]
    return rows


def deliver(stage: Stage, source: str, event: Mapping[str, Any]) -> None:
    """A signed event, as its source would send it."""
    body = json.dumps(event).encode()
    signature = hmac.new(SECRETS[BOOKS[source]].encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Book-Signature": signature}
    with urllib.request.urlopen(urllib.request.Request(f"{stage.url}/hooks/{source}", body, headers), timeout=30):
        pass


@contextmanager
def chain() -> Iterator[str]:
    """A real EVM on loopback; answers its URL."""
    binary = str(ANVIL) if ANVIL.exists() else shutil.which("anvil")
    if binary is None:
        sys.exit("this example needs anvil: npm install --prefix tests/npm --no-package-lock")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node = subprocess.Popen([binary, "--port", str(port), "--chain-id", "43112", "--silent"])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        node.terminate()
        node.wait(30)


def make(folder: Path, name: str, rpc: str, world: ExitStack) -> tuple[Stage, StripeTwin | None]:
    """Simulators, and a deployment over them."""
    if name == "treasury-sweep":
        stage = Stage(folder, {"EVM_PAYER_KEY": ANVIL_KEY})
        stage.cli("init", stage.root, "--template", "chain-payments", "--policy", HERE / "policy" / "chain")
        file = stage.root / "countermark.toml"
        node = rpc or world.enter_context(chain())
        file.write_text(file.read_text().replace("http://127.0.0.1:8545", node))
        return stage, None
    twin = world.enter_context(
        StripeTwin.start(folder / "simulator", running=True, accounts=ACCOUNTS, balances={"eur": 100_000_000})
    )
    stage = Stage(folder, {"STRIPE_API_KEY": twin.key, **SECRETS})
    stage.cli("init", stage.root, "--policy", HERE / "policy" / "stripe", "--stripe-origin", twin.url)
    with (stage.root / "countermark.toml").open("a") as file_of_sources:
        file_of_sources.write(SOURCES)
    return stage, twin


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=sorted(EXAMPLES))
    parser.add_argument("--dir", type=Path, help="where it writes; a new folder (default: one that is made up)")
    parser.add_argument(
        "--rpc", default="", help="treasury-sweep: a node with anvil's accounts (default: one is started)"
    )
    asked = parser.parse_args()
    folder = (asked.dir or Path(tempfile.mkdtemp(prefix=f"countermark-{asked.name}-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as world:
        stage, twin = make(folder, asked.name, asked.rpc, world)
        with stage.served():
            EXAMPLES[asked.name](stage, twin)
        stage.evidence()
    print(f"\nEverything is in {folder}.")


if __name__ == "__main__":
    main()
