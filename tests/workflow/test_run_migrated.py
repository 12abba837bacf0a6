"""A run goes on by another definition when a person says so, and never otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flow_rig import AGENT, an_input, document, job, pay, ref, step, unsound
from rig import Provider, bodies, hold, make, with_bank

import countermark
from countermark.audit import export_pack
from countermark.authority import load_private, sign_migration
from countermark.journal import SqliteStore
from countermark.model.clock import FakeClock
from countermark.model.digest import WORKFLOW, digest_of
from countermark.model.errors import CountermarkError
from countermark.wiring import load_config, log_signer
from countermark_verify import verify

FOLLOWS = {"inputs": {"invoice": an_input("string")}}


def flow(*more: dict[str, Any], invoice: Any = None, wait: str = "w") -> dict[str, Any]:
    """Pay an invoice, wait for the bank, then what is added."""
    paid = pay("first", invoice=ref("inputs.invoice") if invoice is None else invoice)
    waits = step("wait", wait, for_={"kind": "event", "source": "bank", "key": ref("inputs.invoice")})
    return document(job("main", paid, waits, *more), **FOLLOWS)


def verified(root: Path, deployment: str) -> Any:
    """What the independent verifier says of a pack of everything."""
    config = load_config(root)
    with closing(SqliteStore(config.journal, readonly=True)) as store:
        made = export_pack(root.parent / "pack.zip", store, log_signer(config), deployment=deployment)
    return verify(str(made.path), None)


class Running:
    """A run of ``flow()`` that waits for the bank."""

    def __init__(self, root: Path) -> None:
        self.provider, self.clock = Provider(), FakeClock()
        self.made = make(root, self.provider, clock=self.clock)
        self.root = self.made.root
        with_bank(self.root)
        self.handle = self.opened()
        started = {"document": flow(), "inputs": {"invoice": "A-1"}, "agent": AGENT, "wait": True}
        self.run: str = self.handle.call("workflow.start", started)["run"]

    def opened(self) -> countermark.Deployment:
        return hold(self.root, self.provider, self.clock)

    def define(self, other: dict[str, Any]) -> str:
        found: str = self.handle.call("workflow.define", {"document": other})["definition"]
        return found

    def order(self, to: str, **changed: Any) -> dict[str, Any]:
        """What the treasurer signs."""
        now = self.handle.call("workflow.show", {"run": self.run})["definition"]
        plain = {"run": self.run, "from": now, "to": to, "reason": "a second payment is due"}
        document = {"v": 1, "deployment": self.made.deployment, **plain, **changed}
        return {**plain, **sign_migration(document, "treasurer", load_private(self.made.people["treasurer"]))}

    def arrived(self) -> None:
        """The bank says that it was paid."""
        self.handle.call("event.received", {
            "source": "bank", "event": "e1", "key": "A-1", "payload": None, "digest": "sha256:" + "0" * 64,
            "scheme": "test", "evidence": None,
        })  # fmt: skip

    def over(self) -> dict[str, Any]:
        while (found := self.handle.call("workflow.drive", {"run": self.run}))["status"] in ("running", "waiting"):
            pass
        return dict(found)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    found = Running(tmp_path / "d")
    yield found
    found.handle.close()
    assert unsound(found.root) == []


def test_a_person_lets_a_run_go_on_by_another_definition(running: Running) -> None:
    """What was done stays done, what is added is done; the record says who wanted it, and a verifier agrees."""
    to = running.define(flow(pay("second", invoice="A-2")))
    assert running.handle.call("workflow.migrate", running.order(to)) == {"run": running.run, "definition": to}
    assert running.handle.call("workflow.show", {"run": running.run})["definition"] == to
    running.arrived()
    assert running.over()["status"] == "success"
    assert len(running.provider.effects) == 2
    (body,) = bodies(running.root, "run.migrated")
    assert (body["to"], body["person"], body["run"]) == (to, "treasurer", running.run)
    running.handle.close()
    report = verified(running.root, running.made.deployment)
    running.handle = running.opened()
    (step,) = (step for step in report.steps if step.step == "V21")
    assert step.refuting == 0
    assert {one.code for one in step.findings} <= {"V21.no_key", "V21.recompute"}  # nobody is trusted here


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (flow(invoice="A-9"), "something else"),
        (flow(wait="other"), "does not ask for it"),
        (document(job("main", pay("second", invoice="A-2")), **FOLLOWS), "does not ask for it"),
        (flow() | {"name": "another"}, "another name"),
        (flow(), "the one that it goes by"),
    ],
    ids=["argument", "step", "other steps", "name", "same"],
)
def test_what_the_run_did_must_be_a_path_of_the_other_definition(
    running: Running, other: dict[str, Any], says: str
) -> None:
    """Refused, whoever signed it, and nothing is recorded."""
    to = running.define(other)
    with pytest.raises(CountermarkError, match=says) as caught:
        running.handle.call("workflow.migrate", running.order(to))
    assert caught.value.code == "cannot_migrate"
    assert bodies(running.root, "run.migrated") == []


def test_only_a_person_of_here_decides_it(running: Running) -> None:
    """A signature of something else, of nobody, or by another key is refused; so is a definition without a record."""
    other = flow(pay("second", invoice="A-2"))
    with pytest.raises(CountermarkError) as caught:
        running.handle.call("workflow.migrate", running.order(digest_of(WORKFLOW, other)))
    assert caught.value.code == "unknown_definition"
    to = running.define(other)
    for order in (
        running.order(to, reason="another one"), running.order(to, deployment="elsewhere"),
        {**running.order(to), "person": "controller"}, {**running.order(to), "person": "nobody"},
    ):  # fmt: skip
        with pytest.raises(CountermarkError) as caught:
            running.handle.call("workflow.migrate", order)
        assert caught.value.code in ("bad_signature", "not_authorised")
    assert bodies(running.root, "run.migrated") == []


def test_a_changed_definition_never_resumes_silently(running: Running) -> None:
    """A newer definition of the name is recorded, and the gate starts anew: the open run goes on by its own."""
    before = digest_of(WORKFLOW, flow())
    running.define(flow(pay("second", invoice="A-2")))
    running.handle.close()
    running.handle = running.opened()
    running.arrived()
    assert running.over()["status"] == "success"
    assert running.handle.call("workflow.show", {"run": running.run})["definition"] == before
    assert len(running.provider.effects) == 1


def test_it_goes_on_by_the_new_one_after_a_restart(running: Running) -> None:
    """The record is the state: without the rows' file too."""
    running.handle.call("workflow.migrate", running.order(running.define(flow(pay("second", invoice="A-2")))))
    running.handle.close()
    (running.root / "data" / "runs.db").unlink()
    running.handle = running.opened()
    running.arrived()
    assert running.over()["status"] == "success"
    assert len(running.provider.effects) == 2
