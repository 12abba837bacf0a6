"""No sequence of grants, revocations, answers, stops, replays and policies moves money that the chain forbids.

A real gate over a provider in memory and a clock that only the test moves; ``chain_model`` says what may be sent.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from chain_model import AGENT, TOOL, Model, Wanted
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from rig import ACME, BOREALIS, Provider, args_for, edited, hold, make, signed_answer, signed_revocation, waiting

from countermark.authority import activate, clear, grant, load_private, public_of
from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError
from countermark.model.tool import ToolSpec
from countermark.model.values import Outcome, Request
from countermark.policy import Bundle, compile_bundle, with_keys
from countermark.wiring.connectors import drafts
from countermark.wiring.init import Made, mandate_document

HOUR_US = 3_600_000_000
ACCOUNTS = {"acme-paper": ACME, "borealis-hosting": BOREALIS}
ASKS = {"strict": 500, "loose": 2_000}
MAX = 5_000
HANDS = st.integers(0, 1_000)  # chooses among what is there
LIMITS = st.lists(
    st.tuples(
        st.sampled_from(("eur", "eur", "*")), st.sampled_from((0, HOUR_US, None)), st.sampled_from((1, 2, 900, 1_500))
    ),
    max_size=3, unique_by=lambda row: row[:2],
).map(lambda rows: [{"currency": c, "over_us": o, "amount": n if c != "*" else n % 4} for c, o, n in rows
                    if (c, o) != ("*", 0)])  # fmt: skip
PAYEES = st.sampled_from((["*"], ["*"], ["acme-paper"], ["borealis-hosting"], ["acme-paper", "borealis-hosting"]))
PURPOSES = ("", "pay", "pay: rent", "other")


class Watched(Provider):
    """Asks the model, at the moment of sending, whether this may be sent."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(lookup="provider_error")
        self.machine = machine
        self.by_key: dict[str, Wanted] = {}

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        key = dict(request.headers)["Idempotency-Key"]
        one = self.by_key.setdefault(key, self.machine.current)  # type: ignore[arg-type]
        if one is None:
            self.machine.wrong.append("sent although nobody asked")
        else:
            self.machine.wrong += [f"{one}: {why}" for why in self.machine.model.why_not(one)]
            sent = dict(parse_qsl(request.body.decode()))
            asked = {"amount": str(one.amount), "destination": one.account, "metadata[invoice]": one.invoice}
            self.machine.wrong += [f"{one}: sent {sent}"] if not asked.items() <= sent.items() else []
            one.status, one.at = "moved", one.at or self.machine.clock.now_us()
        return super().execute(tool, request)


class Machine(RuleBasedStateMachine):
    """Each rule does one thing to the gate; what went wrong is found after every step."""

    made: Made
    seen: Counter[str]
    policies: Mapping[str, Bundle]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cm-chain-"))
        shutil.copytree(self.made.root, self.folder / "d")
        self.clock = FakeClock()
        self.model = Model(self.clock.now_us, ASKS, MAX)
        self.provider = Watched(self)
        self.wrong: list[str] = []
        self.current: Wanted | None = None
        self.runs: list[tuple[str, str]] = []
        self.asked: dict[str, Wanted] = {}
        self.answers: list[dict[str, Any]] = []
        self.grants: list[dict[str, Any]] = []
        self.count = 0
        self.handle = hold(self.folder / "d", self.provider, self.clock)

    def teardown(self) -> None:
        self.handle.close()
        shutil.rmtree(self.folder)

    def check_invariants(self, *args: Any, **more: Any) -> None:
        super().check_invariants(*args, **more)
        assert self.wrong == []

    def key(self, person: str) -> Any:
        return load_private(self.made.people[person])

    @initialize(limits=LIMITS, payees=PAYEES)
    def first(self, limits: Any, payees: list[str]) -> None:
        """A policy, a root that grants enough, and somebody below it."""
        self.activate("strict")
        self.grant(0, [{"currency": "eur", "over_us": None, "amount": 900}], ["*"], "pay", 40)
        self.grant(1, [], payees, "pay: rent", 40)
        self.grant(0, [], ["*"], "", 40)
        self.grant(2, limits, ["*"], "pay: rent", 40)

    @rule(name=st.sampled_from(("strict", "loose")))
    def activate(self, name: str) -> None:
        bundle = self.policies[name]
        previous = self.handle.call("status", {})["activation"]
        order = {"deployment": "test", "bundle": bundle.digest, "previous": previous,
                 "author": bundle.compiled.author, "activator": "treasurer"}  # fmt: skip
        self.handle.call("activate", {**activate(order, self.key("treasurer")), "document": bundle.document})
        self.model.policy = name

    @rule(
        below=HANDS,
        limits=LIMITS,
        payees=PAYEES,
        purpose=st.sampled_from(PURPOSES),
        hours=st.sampled_from((-1, 0, 1, 6, 40, 40)),
    )
    def grant(self, below: int, limits: Any, payees: list[str], purpose: str, hours: int) -> None:
        known = list(self.model.mandates)
        parent = None if below % 4 == 0 or not known else known[below % len(known)]
        above = self.model.mandates.get(parent or "", {"not_before": self.clock.now_us(), "not_after": 0})
        document = mandate_document(
            "test", "treasurer", AGENT, parent=parent, limits=limits, payees=payees, purpose=purpose,
            not_before=above["not_before"],
            not_after=above["not_after"] if parent and hours >= 0 else self.clock.now_us() + (1 + abs(hours)) * HOUR_US,
        )  # fmt: skip
        try:
            body = grant(document, self.key("treasurer"))
            digest = self.handle.call("mandate.grant", body)
        except CountermarkError:
            return
        assert not self.model.wider(document)
        self.model.mandates[digest] = document
        self.grants.append(body)

    @precondition(lambda self: self.grants)
    @rule(hand=HANDS)
    def grant_again(self, hand: int) -> None:
        """What was granted, and perhaps revoked, comes in once more: it brings nothing back."""
        self.handle.call("mandate.grant", self.grants[hand % len(self.grants)])

    @precondition(lambda self: self.model.mandates)
    @rule(hand=HANDS)
    def revoke(self, hand: int) -> None:
        if hand % 4:
            return
        digest = list(self.model.mandates)[hand % len(self.model.mandates)]
        self.handle.call("mandate.revoke", signed_revocation(self.made, digest))
        self.model.revoked.add(digest)

    def start(self, hand: int) -> tuple[str, str] | None:
        """A run under some mandate, an old one or a new one; None when the gate grants none."""
        alive = [digest for digest in self.model.mandates if hand % 7 == 0 or digest not in self.model.revoked]
        digest = (alive or list(self.model.mandates))[hand % (len(alive) or len(self.model.mandates))]
        known = [run for run in self.runs if run[1] == digest]
        if known and hand % 9:
            return known[hand % len(known)]
        try:
            self.runs.append((self.handle.start_run(mandate=digest), digest))
        except CountermarkError as error:
            self.seen[error.code] += 1
            return None
        return self.runs[-1]

    @rule(hand=HANDS, payee=st.sampled_from(sorted(ACCOUNTS)), invoice=st.integers(1, 12),
          amount=st.sampled_from((100, 200, 300, 450, 450, 800, 1_400, 2_500, 6_000)),
          fault=st.sampled_from(("", "", "", "", "refused", "lost_after")))  # fmt: skip
    def pay(self, hand: int, payee: str, invoice: int, amount: int, fault: str) -> None:
        started = self.start(hand)
        if started is None:
            return
        run, mandate = started
        self.count += 1
        one = Wanted(f"call-{self.count}", run, mandate, payee, ACCOUNTS[payee], f"INV-{invoice}", amount)
        self.model.wanted.append(one)
        self.provider.script.clear()
        self.provider.script.append(fault)
        self.ask(one)

    @rule(hand=HANDS, invoice=st.integers(1, 40), amount=st.sampled_from((100, 200, 450, 700)))
    def pay_a_little(self, hand: int, invoice: int, amount: int) -> None:
        self.pay(hand, "acme-paper", invoice, amount, "")

    @rule(invoice=st.integers(1, 40), amount=st.sampled_from((200, 400)), times=st.integers(1, 4))
    def pay_below_the_first_mandate(self, invoice: int, amount: int, times: int) -> None:
        """Several in a row, under what the root grants and nothing else does."""
        for number in range(times):
            self.pay(1, "acme-paper", 100 * (number + 1) + invoice, amount, "")

    @rule(hand=HANDS, invoice=st.integers(1, 40), amount=st.sampled_from((600, 2_500)),
          then=st.sampled_from(("nothing", "approve", "activate", "refuse")))  # fmt: skip
    def pay_what_is_asked_about(self, hand: int, invoice: int, amount: int, then: str) -> None:
        self.pay(hand, "borealis-hosting", invoice, amount, "")
        if then == "activate":
            self.activate("loose" if self.model.policy == "strict" else "strict")
        if then != "nothing":
            self.answer(0, "refuse" if then == "refuse" else "approve")

    @precondition(lambda self: self.model.refused)
    @rule(hand=HANDS)
    def pay_what_was_refused(self, hand: int) -> None:
        payee, invoice = sorted(self.model.refused)[hand % len(self.model.refused)]
        self.pay(hand, payee, int(invoice.removeprefix("INV-")), 100, "")

    @precondition(lambda self: any(one.status == "moved" for one in self.model.wanted))
    @rule(hand=HANDS, amount=st.sampled_from((100, 450)))
    def pay_again(self, hand: int, amount: int) -> None:
        """An invoice that was paid is asked for under another call, run or mandate."""
        moved = [one for one in self.model.wanted if one.status == "moved"]
        one = moved[hand % len(moved)]
        self.pay(hand, one.payee, int(one.invoice.removeprefix("INV-")), amount, "")

    def ask(self, one: Wanted) -> None:
        self.current = one
        args = args_for(one.invoice.removeprefix("INV-"), one.amount, one.account)
        try:
            result = self.handle.act(TOOL, args, run=one.run, call_id=one.call_id)
        finally:
            self.current = None
        self.seen[result.code] += 1
        if result.status == "failed":
            one.status = "failed"
        if result.status == "escalated" and result.escalation not in self.asked:
            self.asked[result.escalation] = one
            one.asked_under = self.model.policy

    @precondition(lambda self: self.model.wanted)
    @rule(hand=HANDS)
    def replay(self, hand: int) -> None:
        """The same call again: nothing new is sent, whatever happened meanwhile."""
        one = self.model.wanted[hand % len(self.model.wanted)]
        before = len(self.provider.sent)
        self.ask(one)
        assert len(self.provider.sent) == before

    @precondition(lambda self: self.model.wanted)
    @rule(hand=HANDS)
    def replay_altered(self, hand: int) -> None:
        """The same call with another amount is refused."""
        one = self.model.wanted[hand % len(self.model.wanted)]
        args = args_for(one.invoice.removeprefix("INV-"), one.amount + 1, one.account)
        with pytest.raises(CountermarkError):
            self.handle.act(TOOL, args, run=one.run, call_id=one.call_id)

    @rule(hand=HANDS, verdict=st.sampled_from(("approve", "approve", "refuse")))
    def answer(self, hand: int, verdict: str) -> None:
        parked = waiting(self.handle)
        if not parked:
            return
        found = parked[hand % len(parked)]
        one = self.asked[found["escalation"]]
        body = signed_answer(self.made, found, verdict)
        self.answers.append(body)
        in_time = self.clock.now_us() < found["not_after"]
        if verdict == "approve" and in_time:
            one.approved_under = one.asked_under
        self.current = one
        try:
            result = self.handle.call("answer", body)
        except CountermarkError:
            return
        finally:
            self.current = None
        if verdict == "refuse" and in_time:
            self.model.refused.add((one.payee, one.invoice))
        done = result["result"] or {"status": "", "code": ""}
        self.seen[f"{result['state']}, then {done['code']}"] += 1
        if done["status"] == "failed":
            one.status = "failed"

    @rule(change=st.sampled_from((None, None, "strict", "loose")), hand=HANDS)
    def approve_what_waits(self, change: str | None, hand: int) -> None:
        """The newest one, sometimes under another policy than it was asked under, or after its mandate ended."""
        if change is not None:
            self.activate(change)
        if hand % 8 == 0:
            self.revoke(hand)
        self.answer(0, "refuse" if hand % 4 == 1 else "approve")

    @precondition(lambda self: self.answers)
    @rule(hand=HANDS)
    def answer_again(self, hand: int) -> None:
        """An answer that was given once is worth nothing the second time."""
        with suppress(CountermarkError):
            self.handle.call("answer", self.answers[hand % len(self.answers)])

    @precondition(lambda self: not self.model.kills)
    @rule(hand=HANDS, kind=st.sampled_from(("deployment", "agent", "tool", "payee", "mandate")))
    def kill(self, hand: int, kind: str) -> None:
        values = {"deployment": ["test"], "agent": [AGENT], "tool": [TOOL], "payee": sorted(ACCOUNTS),
                  "mandate": list(self.model.mandates)}[kind]  # fmt: skip
        if values and hand % 3 == 0:
            value = values[0 if hand % 2 else hand // 2 % len(values)]
            body = {"kind": kind, "reason": ""} | ({} if kind == "deployment" else {"value": value})
            self.model.kills[self.handle.call("kill.set", body)["kill"]] = (kind, value)

    @precondition(lambda self: len(self.runs) > 0 and not self.model.kills)
    @rule(hand=HANDS, invoice=st.integers(1, 40))
    def kill_what_stands_above(self, hand: int, invoice: int) -> None:
        """A mandate of a run's chain is stopped, and somebody pays in that run."""
        run = self.runs[hand % len(self.runs)]
        value = self.model.chain(run[1])[-1][0]
        body = {"kind": "mandate", "reason": "", "value": value}
        self.model.kills[self.handle.call("kill.set", body)["kill"]] = ("mandate", value)
        self.pay_in(run, invoice)
        self.clear(0)

    @precondition(lambda self: len(self.runs) > 0)
    @rule(hand=HANDS, invoice=st.integers(1, 40))
    def revoke_what_stands_above(self, hand: int, invoice: int) -> None:
        """The root of a run's chain is revoked, and somebody pays in that run."""
        if hand % 4:
            return
        run = self.runs[hand // 4 % len(self.runs)]
        root = self.model.chain(run[1])[-1][0]
        self.handle.call("mandate.revoke", signed_revocation(self.made, root))
        self.model.revoked.add(root)
        self.pay_in(run, invoice)

    def pay_in(self, run: tuple[str, str], invoice: int) -> None:
        self.count += 1
        one = Wanted(f"call-{self.count}", *run, "acme-paper", ACME, f"INV-{1_000 + invoice}", 100)
        self.model.wanted.append(one)
        self.provider.script.clear()
        self.ask(one)

    @precondition(lambda self: self.model.kills)
    @rule(hand=HANDS)
    def clear(self, hand: int) -> None:
        kill = list(self.model.kills)[hand % len(self.model.kills)]
        order = {"deployment": "test", "kill": kill, "person": "treasurer", "reason": "looked into"}
        self.handle.call("kill.clear", clear(order, self.key("treasurer")))
        del self.model.kills[kill]

    @rule(minutes=st.sampled_from((1, 1, 2, 20, 61, 250)))
    def wait(self, minutes: int) -> None:
        self.clock.advance(60 * minutes)

    @rule(hand=HANDS)
    def restart(self, hand: int) -> None:
        """The gate closes and opens again; what was unknown may be sent again then, if it still may."""
        if hand % 6:
            return
        self.handle.close()
        self.provider.script.clear()
        self.handle = hold(self.folder / "d", self.provider, self.clock)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> type[Machine]:
    """A deployment that every example copies, and the two policies that it goes back and forth between."""
    root, texts = tmp_path_factory.mktemp("chain") / "d", {}
    for name, above in ASKS.items():
        texts[name] = edited({
            "max = 2500000 ": f"max = {MAX} ", "ask_above = 500000": f"ask_above = {above}",
            "flag_above = 200000 ": "flag_above = 400 ",
        })  # fmt: skip
    made = make(root, Provider(), clock=FakeClock(), edit=texts["strict"])
    keys = {person: str(public_of(load_private(path))) for person, path in made.people.items()}
    bundles = {name: compile_bundle(sorted(with_keys(files, keys).items()), drafts()) for name, files in texts.items()}

    class Prepared(Machine):
        pass

    Prepared.made, Prepared.policies, Prepared.seen = made, bundles, Counter()
    return Prepared


def limited(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.fixture
def machine(prepared: type[Machine]) -> Iterator[Machine]:
    """The machine in the hands of a test, in place of hypothesis."""
    one = prepared()
    yield one
    one.teardown()


def test_in_one_history_every_answer_comes_up_and_the_model_forbids_none_of_it(machine: Machine) -> None:
    """Paid, doubled, not that payee, too much, asked, approved in time and too late, stopped, revoked: each once."""
    machine.first([{"currency": "eur", "over_us": None, "amount": 1_500}], ["acme-paper"])
    one = machine
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("ok", lambda: one.pay(2, "acme-paper", 1, 300, "")),
        ("duplicate_obligation", lambda: one.pay(2, "acme-paper", 1, 300, "")),
        ("mandate_payee", lambda: one.pay(1, "borealis-hosting", 2, 100, "")),
        ("mandate_limit", lambda: one.pay_below_the_first_mandate(3, 400, 3)),
        ("needs_approval", lambda: one.pay(2, "borealis-hosting", 4, 600, "")),
        ("approved, then ok", lambda: one.answer(0, "approve")),
        ("approved, then approval_void", lambda: one.pay_what_is_asked_about(2, 5, 600, "activate")),
        ("", lambda: one.kill(0, "payee")),
        ("killed", lambda: one.pay(2, "acme-paper", 6, 100, "")),
        ("", lambda: one.clear(0)),
        ("ok", lambda: one.pay(2, "acme-paper", 7, 100, "")),
        ("", lambda: one.revoke(0)),
        ("mandate_not_in_force", lambda: one.pay(21, "acme-paper", 8, 100, "")),
        ("", lambda: one.restart(0)),
        ("ok", lambda: one.replay(0)),
        ("", lambda: one.replay_altered(0)),
    )
    for code, step in steps:
        before = machine.seen[code]
        step()
        assert not code or machine.seen[code] == before + 1, (code, machine.seen)
        assert machine.wrong == []
    assert len(machine.provider.sent) == 5


def test_no_sequence_moves_what_the_chain_forbids(prepared: type[Machine]) -> None:
    """A few short histories. Digests are new in every run, so that no count of rare answers is certain in them."""
    run_state_machine_as_test(prepared, settings=limited(4, 25))


@pytest.mark.slow
def test_no_long_sequence_moves_what_the_chain_forbids(prepared: type[Machine]) -> None:
    """More and longer histories; CM_EXAMPLES says how many. The common answers came up in them.

    What is asked for is a quarter or less of what comes up, because digests, which are new in every run, decide along.
    """
    examples = int(os.environ.get("CM_EXAMPLES", "30"))
    run_state_machine_as_test(prepared, settings=limited(examples, 80))
    enough = {"ok": 2, "killed": 0.6, "mandate_not_in_force": 0.4, "mandate_limit": 4, "needs_approval": 0.2}
    few = {code: least for code, least in enough.items() if prepared.seen[code] < int(least * examples)}
    assert few == {}, prepared.seen
