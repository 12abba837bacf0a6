"""What the gate's tests share: a payment provider in memory, deployments over it, signatures, the judgement."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import policy_for, records

import countermark
from countermark.audit import bundles_of, cache_faults, present_state, reperform
from countermark.authority import build_approval, clear, grant, load_private, revoke, sign_approval
from countermark.connectors.stripe import DRAFTS
from countermark.journal import SqliteStore
from countermark.log import Frontier, leaf_hash, open_checkpoint
from countermark.model.clock import FakeClock
from countermark.model.ports import Connector
from countermark.model.request import prepare
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome, Request, Result
from countermark.policy import DictKeys, State
from countermark.twins.stripe import StripeTwin
from countermark.wiring.init import Made, init_deployment, mandate_document

TOOL = "stripe.transfers.create"
AGENT = "treasury"
ACME, BOREALIS = "acct_1AcmePaper", "acct_1BorealisHosting"
LOOSE = {
    "max = 5000000\n": "max = 900000000\n",
    "max = 3000000\n": "max = 900000000\n",
    "max = 20\n": "max = 100000\n",
}
WAIT_S_MAX = 20
_KEPT: dict[Any, Made] = {}
_TURNS: dict[str, Counter[Any]] = {}


class Provider:
    """A provider in memory that keeps its promise on idempotency keys. ``script`` says what goes wrong, in order.

    Faults: ``lost_after`` (done, no answer), ``lost_before`` (not done, no answer), ``refused``, ``limited``,
    ``not_sent``, ``no_key`` (for want of a credential), ``raise`` (the connector breaks its contract), ``hold`` (waits
    for ``go``, then is done),
    ``hold_lost`` (waits for ``go``, then is ``lost_before``).
    """

    name = "stripe"
    blocking = True

    def __init__(self, script: Sequence[str] = (), *, lookup: str = "") -> None:
        self.script = deque(script)
        self.lookup_says = lookup
        self.effects: list[str] = []  # provider keys, in the order in which money moved
        self.sent: list[str] = []
        self.asked: list[str] = []
        self.held = threading.Semaphore(0)
        self.go = threading.Event()
        self._lock = threading.Lock()

    def tools(self) -> Sequence[ToolSpec]:
        return DRAFTS

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        return prepare(tool, args, key)

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        key = dict(request.headers)["Idempotency-Key"]
        with self._lock:
            fault = self.script.popleft() if self.script else ""
            self.sent.append(key)
        if fault in ("hold", "hold_lost"):
            self.held.release()
            if not self.go.wait(WAIT_S_MAX):
                raise TimeoutError("nobody let the provider go on")
        if fault == "raise":
            raise RuntimeError("a bug in a connector")
        if fault in ("lost_before", "hold_lost"):
            return Outcome("unknown", "timeout")
        if fault in ("refused", "limited", "not_sent"):
            code = {"refused": "provider_refused", "limited": "provider_rate_limited"}.get(fault, "not_sent")
            return Outcome("failed", code, http_status={"refused": 402, "limited": 429}.get(fault, 0))
        if fault == "no_key":
            return Outcome("failed", "not_sent", request_id="missing_secret", attempts=0)
        with self._lock:
            if key not in self.effects:
                self.effects.append(key)
        return Outcome("unknown", "timeout") if fault == "lost_after" else self._done(key, "ok")

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        self.asked.append(key)
        if self.lookup_says:
            return Outcome("unknown", self.lookup_says)
        return self._done(key, "found") if key in self.effects else Outcome("failed", "not_found")

    def close(self) -> None:
        """There is nothing to let go of."""

    def _done(self, key: str, code: str) -> Outcome:
        return Outcome("confirmed", code, ref="tr_" + key[3:19], http_status=200)


def edited(changes: Mapping[str, str] | None = None, tools: Mapping[str, str] | None = None) -> dict[str, str]:
    """The vendor-payments policy with loose windows, and text replacements in ``limits.toml`` and ``tools.toml``."""
    files = policy_for({**LOOSE, **(changes or {})})
    for old, new in (tools or {}).items():
        assert old in files["tools.toml"]
        files["tools.toml"] = files["tools.toml"].replace(old, new)
    return files


def transfers(**keys: str | int) -> dict[str, str]:
    """A replacement for ``edited``: keys of the transfer tool, for instance ``recovery="lookup"``."""
    head = '[tool."stripe.transfers.create"]          # pay a vendor\'s invoice\n'
    lines = "".join(
        f'{name} = "{value}"\n' if type(value) is str else f"{name} = {value}\n" for name, value in keys.items()
    )
    return {head: head + lines}


def with_bank(root: Path) -> None:
    """Configure a source of events, ``bank``, of a deployment that nobody has opened yet."""
    with (root / "countermark.toml").open("a") as file:
        file.write(
            '\n[workflows.sources.bank]\nkind = "webhook"\nscheme = "standard"\nsecret = "env:BANK_SECRET"\n'
            'key = "/key"\n'
        )


def _turns() -> Counter[Any]:
    """How often the test that is running asked for which deployment."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if test not in _TURNS:
        _TURNS.clear()
    return _TURNS.setdefault(test, Counter())


def make(
    root: Path, provider: Connector, *, clock: FakeClock | None = None, changes: Mapping[str, str] | None = None,
    tools: Mapping[str, str] | None = None, edit: Mapping[str, str] | None = None,
) -> Made:  # fmt: skip
    """A deployment over a provider in memory.

    What is made is kept and copied to whoever asks for the same in another test, as making one compiles a policy. Those
    that one test makes are never copies of one another: they have keys of their own.
    """
    files = {**edited(changes, tools), **(edit or {})}
    turns = _turns()
    wanted = (*sorted(files.items()), type(provider).__qualname__, clock and clock.now_us())
    which = (wanted, turns[wanted])
    turns[wanted] += 1
    if which not in _KEPT:
        kept = Path(tempfile.mkdtemp(prefix="cm-rig-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))) / "d"
        atexit.register(shutil.rmtree, kept.parent, ignore_errors=True)
        _KEPT[which] = init_deployment(
            kept, "vendor-payments", "test", edit=files, clock=clock, connectors={"stripe": provider}
        )
    made = _KEPT[which]
    shutil.copytree(made.root, root, dirs_exist_ok=True)
    return replace(made, root=root, people={name: root / "people" / path.name for name, path in made.people.items()})


def hold(root: Path, provider: Connector, clock: FakeClock | None = None) -> countermark.Deployment:
    """Open a deployment made by ``make``."""
    return countermark.open(root, agent=AGENT, connectors={"stripe": provider}, clock=clock)


def args_for(invoice: object, amount: object = 1000, destination: object = ACME) -> dict[str, Any]:
    return {"amount": amount, "currency": "eur", "destination": destination, "metadata[invoice]": f"INV-{invoice}"}


def pay(
    handle: countermark.Deployment, number: object, amount: int = 1000, *, destination: str = ACME,
    run: str | None = None, call_id: str | None = None, reason: str = "",
) -> Result:  # fmt: skip
    """Pay invoice ``number`` under a call_id of its own."""
    args = args_for(number, amount, destination)
    return handle.act(TOOL, args, run=run, call_id=call_id or f"pay-{number}", reason=reason)


def waiting(handle: countermark.Deployment) -> list[dict[str, Any]]:
    """The escalations that wait, as approvers see them, the oldest first."""
    found: list[dict[str, Any]] = []
    while page := handle.call("escalations", {"after": found[-1]["seq"] if found else None}):
        found += page
    return found[::-1]


def signed_answer(
    made: Made, parked: Mapping[str, Any], verdict: Any = "approve", person: str = "controller",
    ladder: str = "finance", **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """A person's signed answer; ``changes`` replace members of the document before it is signed."""
    document = build_approval(parked, deployment=made.deployment, ladder=ladder, verdict=verdict, person=person)
    return sign_approval({**document, **changes}, load_private(made.people[person]))


def clear_kill(handle: countermark.Deployment, made: Made, kill: str, person: str = "treasurer") -> None:
    order = {"deployment": made.deployment, "kill": kill, "person": person, "reason": "looked into"}
    handle.call("kill.clear", clear(order, load_private(made.people[person])))


def signed_revocation(made: Made, mandate: str, person: str = "treasurer") -> dict[str, Any]:
    order = {"deployment": made.deployment, "mandate": mandate, "person": person, "reason": "no longer"}
    return revoke(order, load_private(made.people[person]))


def grant_to(handle: countermark.Deployment, made: Made, now_us: int, **members: Any) -> str:
    """Grant the treasury agent a mandate; ``members`` as for ``mandate_document``. Returns its digest."""
    fields: dict[str, Any] = {"not_before": now_us - 1_000_000, "not_after": now_us + 3_600_000_000, **members}
    document = mandate_document(made.deployment, "treasurer", AGENT, **fields)
    digest: str = handle.call("mandate.grant", grant(document, load_private(made.people["treasurer"])))
    return digest


def kinds(root: Path) -> list[str]:
    return [record.kind for record in records(root)]


def bodies(root: Path, kind: str) -> list[Mapping[str, Any]]:
    return [record.body for record in records(root) if record.kind == kind]


def unsound(root: Path) -> list[str]:
    """What does not hold in a journal that nobody owns: tree against its signed head, chain, every decision again."""
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        found = list(store.records())
        frontier = Frontier()
        for record in found:
            frontier.append(leaf_hash(record.raw))
        head = store.head()
        key = next(r.body["log_key"] for r in reversed(found) if r.kind in ("gate.started", "lane.succeeded"))
        wrong: list[str] = []
        if head is None or open_checkpoint(head[1], [key]).root != frontier.root() or head[0] != len(found):
            wrong.append("the signed head is not of these records")
        report = reperform(found, bundles_of(store))
        return wrong + [str(mismatch) for mismatch in report.mismatches]
    finally:
        store.close()


def doubled(values: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {value for value in values if value in seen or seen.add(value)}  # type: ignore[func-returns-value]


class Stand:
    """A deployment over the Stripe simulator, made once and copied by tests; ``only`` narrows the books to a tag."""

    def __init__(
        self, folder: Path, *, tools: Mapping[str, str] | None = None, after: Mapping[str, str] | None = None,
        clock: FakeClock | None = None, edit: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """``after`` replaces in the loosened ``limits.toml``; with a ``clock`` the simulator's clock stands too."""
        self.root = folder / "d"
        self.twin = StripeTwin.start(
            folder / "twin", seed=5, running=clock is None, accounts=[ACME, BOREALIS], balances={"eur": 10**11}
        )
        os.environ["STRIPE_API_KEY"] = self.twin.key
        files = {**edited(None, tools), **(edit or {})}
        for old, new in (after or {}).items():
            files["limits.toml"] = files["limits.toml"].replace(old, new)
        self.made = init_deployment(
            self.root, "vendor-payments", "test", stripe_origin=self.twin.url, edit=files, clock=clock
        )

    def __enter__(self) -> Stand:
        return self

    def __exit__(self, *_: object) -> None:
        self.twin.stop()

    def only(self, tag: str) -> Only:
        return Only(self.twin, tag)


class Only:
    """The simulator's books, as far as invoices whose name begins with a tag are concerned."""

    def __init__(self, twin: StripeTwin, tag: str) -> None:
        self._twin, self._tag = twin, tag

    def books(self) -> Only:
        return self

    def movements(self) -> list[Any]:
        return [m for m in self._twin.books().movements() if m.metadata.get("invoice", "").startswith(self._tag + "-")]


def _streams(store: SqliteStore) -> dict[str, tuple[int, str]]:
    """The streams as a start would know them: the stored ones, then those of the records after the snapshot."""
    rows = store._db.execute("select name, seq, digest from stream").fetchall()
    found = {name: (seq, digest) for name, seq, digest in rows}
    snapshot = store.snapshot()
    for record in store.records(0 if snapshot is None else snapshot[0]):
        found.update({name: (place[0], record.digest) for name, place in record.streams.items()})
    return found


def rebuilt_equally(root: Path) -> bool:
    """Whether snapshot and tail give exactly the state that all records give, and the stored keys are those."""
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        keys = DictKeys()
        whole = State(keys, bundles_of(store))
        for record in store.records():
            whole.apply(record, lambda stop=record.seq: store.records(0, stop))  # type: ignore[misc]
        present = present_state(store)
        return (
            present.dump() == whole.dump() and all(present.keys.get(key) == seq for key, seq in keys.items())
            and cache_faults(store) == [] and _streams(store) == dict(whole.streams)  # type: ignore[call-overload]
        )  # fmt: skip
    finally:
        store.close()
