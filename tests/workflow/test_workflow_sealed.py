"""Sealed runs: their values stand nowhere in clear, drive the run all the same, and go when two people say so."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flow_rig import ADD, AGENT, an_input, document, job, pay, ref, run_it, step, with_approvals
from rig import Provider, bodies, edited, make, rebuilt_equally, unsound
from support import records

import countermark
from countermark.audit import Opened, audit_runs, erasure_document, export_pack, receipt_lines, run_receipt, unsealer
from countermark.authority import load_private, public_of, sign_erasure, sign_migration
from countermark.connectors import ApproveConnector
from countermark.journal import SqliteStore, Vault
from countermark.log import LogSigner
from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError
from countermark.model.sealing import hidden_value, is_sealed
from countermark.wiring.config import load_config
from countermark.wiring.deployment import read_key
from countermark.workflow import Workflow, read_definition, read_yaml
from countermark.workflow.errors import DefinitionError
from countermark.workflow.flow_expressions import fmt
from countermark_verify import parse_trust, verify

DAY_S = 86_400
KEEP = '[retention]\nkeep = "30d"\n'
SECRET, WHOSE = "DE89370400440532013000", "mrs-example"
ECHO = "def main(text):\n    return {'text': 'for ' + text}\n"
FAIL = "def main(text):\n    fail('not payable: ' + text)\n"


def sealed(*jobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition whose runs are about the person that their input ``whose`` names."""
    inputs = {"whose": an_input("string"), "text": an_input("string")}
    return document(*jobs, **{"inputs": inputs, "sensitive": ref("inputs.whose"), **more})


def echo(name: str = "echo", text: str = "inputs.text", code: str = ECHO, **more: Any) -> dict[str, Any]:
    return step("pure", name, code=code, with_={"text": ref(text)}, outputs={"text": "string"}, **more)


def pausing(seconds: int = 60) -> dict[str, Any]:
    """Pure, a failure that quotes its input, a payment, a pause, pure."""
    return sealed(
        job(
            "main", echo(), echo("bad", code=FAIL, continue_on_error=True), pay(),
            step("wait", "pause", for_={"kind": "time", "seconds": seconds}),
            echo("again", "steps.echo.outputs.text"), outputs=[["text", ref("steps.again.outputs.text")]],
        ),
        outputs=[["text", ref("needs.main.outputs.text")]],
        concurrency={"group": ref("inputs.text"), "cancel": False},
    )  # fmt: skip


class Stage:
    """A deployment with a retention rule, held by this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.clock, self.provider = folder, folder / "d", FakeClock(), Provider()
        files_ = with_approvals(edited({"[payment]": f"{KEEP}\n[payment]"}))
        self.made = make(self.root, self.provider, clock=self.clock, edit=files_)
        self.handle: Any = None
        self.open()

    def open(self) -> None:
        self.handle = self.opened()

    def close(self) -> None:
        if self.handle is not None:
            self.handle.close()
        self.handle = None

    def opened(self) -> countermark.Deployment:
        connectors = {"stripe": self.provider, "workflow": ApproveConnector()}
        return countermark.open(self.root, agent=AGENT, connectors=connectors, clock=self.clock)

    def start(self, definition: Mapping[str, Any], **more: str) -> dict[str, Any]:
        return run_it(self.handle, definition, **{"whose": WHOSE, "text": SECRET, **more})

    def drive(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.handle.call("workflow.drive", {"run": run})
        return found

    def again(self) -> None:
        self.close()
        self.open()

    def later(self, seconds: int) -> None:
        """Stop, let time pass, and start again."""
        self.close()
        self.clock.advance(seconds)
        self.open()

    def erasure(self) -> dict[str, Any]:
        """What two people sign to erase the subject as it is now, signed."""
        store = SqliteStore(self.root / "data" / "journal.db", readonly=True)
        try:
            doc = erasure_document(store, WHOSE, "the person asked for it")
        finally:
            store.close()
        people = {who: load_private(self.made.people[who]) for who in ("treasurer", "controller")}
        return {"erasure": doc, "signed": [sign_erasure(doc, who, key) for who, key in people.items()]}

    def refused(self) -> str:
        """Why nothing is erased now."""
        with pytest.raises(CountermarkError) as caught:
            self.handle.call("erase", self.erasure())
        return caught.value.code

    def files(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.root.rglob("*")) if path.is_file())

    def subjects(self) -> dict[str, bytes]:
        """Every subject's key, as it stands wrapped in the vault."""
        with closing(sqlite3.connect(self.root / "data" / "vault.db")) as db:
            return dict(db.execute("select id, wrapped from subject"))

    def verified(self, disclose: Any = "none", **more: Any) -> tuple[Any, bytes]:
        """What an auditor says of the pack, and the pack."""
        self.close()
        config = load_config(self.root)
        signer = LogSigner("countermark/test/l0", load_private(self.root / "keys" / "log.pem"))
        store = SqliteStore(config.journal, readonly=True)
        vault = Vault(config.vault, read_key(config.keys / "vault.key"))
        path = self.folder / "pack.zip"
        try:
            made = export_pack(
                path, store, signer, deployment="test", disclose=disclose, unseal=unsealer(store, vault), **more
            )
        finally:
            store.close()
            vault.close()
        people = {one.stem: str(public_of(load_private(one))) for one in (self.root / "people").glob("*.pem")}
        trust = {"v": 1, "log": {"origin": "countermark/test/l0", "keys": [signer.vkey]}, "people": people,
                 "heads": [{"size": made.size, "root": made.root, "source": "kept"}]}  # fmt: skip
        return verify(path, parse_trust(json.dumps(trust).encode())), path.read_bytes()


def codes(report: Any) -> list[str]:
    return [one.code for step in report.steps for one in step.findings]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    one = Stage(tmp_path)
    yield one
    one.close()


def test_a_sealed_run_stands_nowhere_in_clear(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Running, parked, over a restart and after its end: no file and no log line has a value, yet it goes on."""
    caplog.set_level("DEBUG")
    run = stage.start(pausing())["run"]
    assert SECRET.encode() not in stage.files()
    stage.again()
    assert SECRET.encode() not in stage.files()
    shown = stage.handle.call("workflow.show", {"run": run})
    assert [row["message"] for row in shown["steps"] if row["message"]] == [f"not payable: {SECRET} (line 2, column 5)"]
    stage.later(100)
    ended = stage.drive(run)
    assert (ended["status"], ended["outputs"]) == ("success", {"text": f"for for {SECRET}"})
    stage.close()
    assert SECRET.encode() not in stage.files()
    assert SECRET not in caplog.text
    assert unsound(stage.root) == []
    assert rebuilt_equally(stage.root)
    stage.open()
    plain = sealed(job("main", echo()))
    del plain["sensitive"]
    stage.start(plain)
    assert SECRET.encode() in stage.files()  # so it would have been found


def test_one_salted_value_stands_in_each_record(stage: Stage) -> None:
    """Inputs, outputs and messages are salted digests under the run's subject; no digest of one could be guessed."""
    stage.later(0)
    run = stage.start(pausing())["run"]
    stage.later(100)
    stage.drive(run)
    stage.close()
    found = [record for record in records(stage.root) if is_sealed(record)]
    assert [(record.kind, hidden_value(record.body)[0]) for record in found] == [
        ("run.started", "$inputs"), ("compute.executed", "$output"), ("compute.executed", "$message"),
        ("step.resumed", "$outputs"), ("compute.executed", "$output"), ("run.ended", "$outputs"),
    ]  # fmt: skip
    assert {record.body["subject"] for record in found} == {WHOSE}
    assert all(record.body["input"] is record.body["result"] is None for record in found if "input" in record.body)
    assert len({hidden_value(record.body)[1] for record in found}) == len(found)
    assert stage.erasure()["erasure"]["values"] == len(found)


def test_erasure_takes_a_run_that_has_ended(stage: Stage) -> None:
    """Refused while the run is open; then its key, its ciphertexts and what it was are gone, and that it ran stays."""
    run = stage.start(pausing(40 * DAY_S))["run"]
    stage.later(31 * DAY_S)
    assert stage.refused() == "subject_busy"
    stage.later(10 * DAY_S)
    assert stage.drive(run)["status"] == "success"
    assert stage.refused() == "retention_duty"
    stage.later(31 * DAY_S)
    wrapped = stage.subjects()[WHOSE]
    assert stage.handle.call("erase", stage.erasure())["values"] == 6
    shown = stage.handle.call("workflow.show", {"run": run})
    assert (shown["status"], shown["erased"], shown["steps"]) == ("success", True, [])
    assert (shown["name"], shown["agent"]) == ("test-flow", AGENT)
    assert WHOSE not in stage.subjects()
    held = stage.files()
    assert not any(gone in held for gone in (wrapped, SECRET.encode()))
    stage.again()
    assert stage.drive(run)["erased"] is True
    report, pack = stage.verified("all")
    assert codes(report) == []
    assert report.counts["runs"] == {"withheld": 0, "erased": 1}
    assert (report.counts["erased"], report.counts["disclosed"]) == (6, 0)
    assert report.axes["computation"]["level"] == "recorded"
    assert SECRET.encode() not in pack
    assert unsound(stage.root) == []


def test_a_run_whose_values_are_lost_is_held(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody destroys the key behind the gate's back: the run says so and does nothing; others go on."""
    run = stage.start(pausing())["run"]
    stage.close()
    config = load_config(stage.root)
    vault = Vault(config.vault, read_key(config.keys / "vault.key"))
    vault.destroy([WHOSE])
    vault.close()
    stage.clock.advance(100)
    stage.open()
    before = len(records(stage.root))
    other = stage.start(sealed(job("main", echo())), whose="somebody-else")
    assert other["status"] == "success"
    assert stage.drive(run)["status"] == "waiting"
    assert f"the run {run} cannot go on" in caplog.text
    assert not any(record.body.get("run") == run for record in records(stage.root)[before:])


def calling(called: str, name: str, whose: Any) -> dict[str, Any]:
    """A sealed definition that calls another one for somebody."""
    step_ = step("call", "call", workflow=called, with_={"whose": whose, "text": ref("inputs.text")})
    inner = job("main", step_, outputs=[["t", ref("steps.call.outputs.text")]])
    return sealed(inner, outputs=[["t", ref("needs.main.outputs.t")]], name=name)


def test_a_called_run_is_sealed_too(stage: Stage) -> None:
    """A sealed run goes on with the outputs of sealed ones; it calls none that seals nothing, nor one about nobody."""
    child = {**sealed(job("main", echo(), outputs=[["text", ref("steps.echo.outputs.text")]]),
                      outputs=[["text", ref("needs.main.outputs.text")]]), "name": "child"}  # fmt: skip
    clear = {name: value for name, value in child.items() if name != "sensitive"}
    closed, plain = (stage.handle.call("workflow.define", {"document": one})["definition"] for one in (child, clear))
    with pytest.raises(DefinitionError, match="of p and a workflow that it calls one is sealed"):
        stage.start(calling(plain, "p", ref("inputs.whose")))
    ended = []
    for name, whose in (("one", ref("inputs.whose")), ("two", "two words")):
        found = stage.start(calling(closed, name, whose))
        while found["status"] == "waiting":
            found = stage.drive(found["run"])
        ended.append((found["status"], found["outputs"]))
    assert ended == [("success", {"t": f"for {SECRET}"}), ("failure", {})]
    assert [body["code"] for body in bodies(stage.root, "step.resumed")] == ["ended", "unfit"]
    assert SECRET.encode() not in stage.files()
    report, pack = stage.verified("all")
    assert codes(report) == []
    assert SECRET.encode() in pack


@pytest.mark.parametrize(("disclose", "followed"), [("all", True), ("none", False), (["$inputs"], False)])
def test_a_pack_shows_what_it_discloses(stage: Stage, disclose: Any, followed: bool) -> None:
    """Disclosed, a sealed run is followed and its code executed again; else it is withheld, and the pack incomplete."""
    stage.start(sealed(job("main", echo(), pay())))
    report, pack = stage.verified(disclose)
    assert codes(report) == ([] if followed else ["V21.withheld"])
    assert report.verdict == ("verified" if followed else "incomplete")
    assert report.counts["runs"] == {"withheld": 0 if followed else 1, "erased": 0}
    assert (SECRET.encode() in pack) == (disclose != "none")
    assert report.axes["computation"]["level"] == ("re-executed" if followed else "recorded")


def test_the_audit_opens_what_the_vault_opens(stage: Stage) -> None:
    """Receipts and paths of sealed runs with the vault at hand; without it nothing is said of them."""
    definition = sealed(job("main", echo()))
    run = stage.start(definition)["run"]
    stage.close()
    config = load_config(stage.root)
    store, vault = SqliteStore(config.journal, readonly=True), Vault(config.vault, read_key(config.keys / "vault.key"))
    source = Opened(store, unsealer(store, vault))
    receipt = run_receipt(source, run)
    assert receipt["inputs"] == {"whose": WHOSE, "text": SECRET}
    assert any("input sealed" in line for line in receipt_lines(receipt))
    found = audit_runs(source, read_definition(definition))
    assert (found["checked"], found["sealed"], found["deviating"]) == (1, 0, 0)
    assert audit_runs(store, read_definition(definition))["sealed"] == 1
    with pytest.raises(CountermarkError, match="values_erased"):
        run_receipt(store, run)
    store.close()
    vault.close()


def test_a_sealed_run_goes_on_by_another_sealed_definition(stage: Stage) -> None:
    """A person may change it while it waits, to one that seals for the same subject; the verifier follows it."""
    pause = step("wait", "pause", for_={"kind": "time", "seconds": 60})
    before, after = (sealed(job("main", echo(), pause, *more)) for more in ((), (echo("more"),)))
    run = stage.start(before)["run"]
    stage.again()
    said = []
    for other in ({**after, "sensitive": "somebody"}, after):
        to = stage.handle.call("workflow.define", {"document": other})["definition"]
        plain = {"run": run, "from": read_definition(before).digest, "to": to, "reason": "more to say"}
        doc = {"v": 1, "deployment": stage.made.deployment, **plain}
        signed = {**plain, **sign_migration(doc, "treasurer", load_private(stage.made.people["treasurer"]))}
        try:
            said.append(stage.handle.call("workflow.migrate", signed)["definition"])
        except CountermarkError as error:
            said.append(error.code)
    assert said == ["cannot_migrate", read_definition(after).digest]
    stage.later(100)
    assert stage.drive(run)["status"] == "success"
    assert len(bodies(stage.root, "compute.executed")) == 2
    assert codes(stage.verified("all")[0]) == []


def test_inputs_that_name_no_subject_start_nothing(stage: Stage) -> None:
    """An account number with spaces, a name, nothing: refused before anything is recorded."""
    for whose in ("", "Mrs Example", "agent:treasury", "x" * 65):
        with pytest.raises(CountermarkError, match="no subject"):
            stage.start(sealed(job("main", echo())), whose=whose)
    assert bodies(stage.root, "run.started") == []


def wait_for(key: Any) -> dict[str, Any]:
    return step("wait", "w", for_={"kind": "event", "source": "bank", "key": key})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sensitive": ref("run.id")}, "run"),
        ({"sensitive": "two words"}, "no subject"),
        ({"sensitive": None}, "a subject is a text"),
        ({"jobs": [job("main", echo(), wait_for(ref("inputs.text")))]}, "the key of an event reads `inputs.text`"),
        ({"jobs": [job("main", echo(), wait_for(ref("steps.echo.outputs.text")))]}, "reads `steps.echo"),
    ],
)
def test_what_would_have_to_stand_in_clear_is_refused(change: dict[str, Any], why: str) -> None:
    """A subject is a text of inputs; an event's key, and an agent's boundary, are no values of a sealed run."""
    with pytest.raises(DefinitionError, match=why):
        read_definition({**sealed(job("main", echo())), **change})


def test_both_front_ends_say_it_alike() -> None:
    """The key ``sensitive`` of YAML and the method of the same name give one document."""
    text = "name: n\nsensitive: c-${{ inputs.whose }}\ninputs: {whose: string}\nsteps: [{id: w, wait: {seconds: 1}}]\n"
    flow = Workflow("n")
    flow.sensitive(fmt("c-{0}", flow.input("whose", str)))
    flow.job("main").wait("w", seconds=1)
    assert read_yaml(text).definition.digest == flow.define().digest
    assert read_yaml(text).document["sensitive"] == ref("format('c-{0}', inputs.whose)")
    with pytest.raises(DefinitionError, match="line 2, column 12: `sensitive` names whose"):
        read_yaml(text.replace("c-${{ inputs.whose }}", "null"))


def test_a_digest_changes_only_where_it_is_said() -> None:
    """A definition that seals nothing has the digest that it always had."""
    plain = document(job("main", step("pure", "add", code=ADD, with_={"amount": 1}, outputs={"amount": "int"})))
    assert "sensitive" not in read_definition(plain).document
    fixed = read_definition({**plain, "sensitive": "customers"})
    assert fixed.digest != read_definition(plain).digest
    for key in (ref("run.id"), "fixed", ref("format('a-{0}', run.id)")):
        read_definition({**sealed(job("main", pay(), wait_for(key))), "name": "ok"})
    read_definition(sealed(job("main", pay(), wait_for(ref("steps.pay.outputs.ref")))))
