"""Workflows, written from docs/spec/workflow.md alone: definitions, and the records of their runs.

Nothing is interpreted here: whoever tells a story says by hand what the definition would do next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from acts import Action
from build import DEPLOYMENT, canonical, digest, doc_digest, seeded, stream
from bundle import person_key
from scribe import ALLOWED, Alter, Answer, Story
from story import TRANSFER, child, root_of_story

ENGINE = "starlark-pyo3/2026.1.3"
LIMITS = {"ticks": 10_000_000, "memory_mb": 256, "seconds": 5}
NET = 'def main(amount, lines):\n    return {"amount": amount + len(lines), "fine": amount > 0}\n'
LINE = 'def main(amount, ref):\n    return {"line": "%s: %d" % (ref, amount)}\n'
HOUR_S = 3_600


def ref(text: str) -> dict[str, str]:
    return {"$": text}


def step_of(name: str, kind: str, **members: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"name": "", "if": None, "continue_on_error": False, "timeout_s": None, "retry": None}
    return {"id": name, "kind": kind, **common, **members}


def job_of(name: str, *steps: dict[str, Any], **members: Any) -> dict[str, Any]:
    common: dict[str, Any] = {
        "needs": [],
        "if": None,
        "matrix": None,
        "fail_fast": True,
        "parallel": 4,
        "continue_on_error": False,
        "timeout_s": None,
        "outputs": [],
    }
    return {"id": name, "steps": list(steps), **common, **members}


def document_of(name: str, *jobs: dict[str, Any], **members: Any) -> dict[str, Any]:
    common: dict[str, Any] = {"triggers": [], "inputs": {}, "outputs": [], "concurrency": None, "timeout_s": None}
    return {"v": 1, "name": name, "jobs": list(jobs), **common, **members}


def input_of(kind: str) -> dict[str, Any]:
    return {"type": kind, "required": True, "default": None, "choices": []}


def transfer(amount: Any, invoice: Any, payee: str = "aurora") -> list[list[Any]]:
    """The `with` of a transfer."""
    given = {"amount": amount, "currency": "EUR", "destination": f"acct-{payee}", "metadata[invoice]": invoice}
    return sorted([name, value] for name, value in given.items())


PAY = document_of(
    "pay-invoice",
    job_of(
        "plan",
        step_of(
            "net",
            "pure",
            code=NET,
            **{"with": [["amount", ref("inputs.amount")], ["lines", ["a", "b"]]]},
            outputs={"amount": "int", "fine": "bool"},
        ),
        outputs=[["amount", ref("steps.net.outputs.amount")]],
    ),
    job_of(
        "pay",
        step_of(
            "send",
            "effect",
            tool=TRANSFER,
            **{"with": transfer(ref("needs.plan.outputs.amount"), ref("inputs.invoice"))},
            undo={
                "tool": TRANSFER,
                "with": transfer(100, ref("format('undo {0}', steps.send.outputs.ref)"), "borealis"),
            },
            retry={"attempts": 2, "delay_s": 60, "factor": 1},
        ),
        step_of(
            "arrival",
            "wait",
            **{"for": {"kind": "event", "source": "bank", "key": ref("steps.send.outputs.ref")}},
            timeout_s=HOUR_S,
        ),
        step_of(
            "note",
            "pure",
            code=LINE,
            **{"with": [["amount", ref("needs.plan.outputs.amount")], ["ref", ref("steps.send.outputs.ref")]]},
            outputs={"line": "string"},
        ),
        needs=["plan"],
        outputs=[["note", ref("steps.note.outputs.line")]],
    ),
    triggers=[
        {
            "kind": "webhook",
            "source": "inbox",
            "if": "event.kind == 'invoice'",
            "with": [["amount", ref("event.amount")], ["invoice", ref("event.invoice")]],
        },
        {"kind": "manual"},
    ],
    inputs={"amount": input_of("int"), "invoice": input_of("string")},
    outputs=[["note", ref("needs.pay.outputs.note")]],
)
CHASE = document_of(
    "chase",
    job_of(
        "main",
        step_of(
            "ask",
            "agent",
            agent="clerk",
            goal=ref("format('pay what is open of {0}', inputs.vendor)"),
            tools=[TRANSFER],
            calls=3,
            budget=[["EUR", 15_000]],
            sees=[["vendor", ref("inputs.vendor")]],
            where=[[TRANSFER, "destination", ["acct-aurora"]]],
            outputs={"paid": "int"},
            timeout_s=HOUR_S,
        ),
        outputs=[["paid", ref("steps.ask.outputs.paid")]],
    ),
    inputs={"vendor": input_of("string")},
    outputs=[["paid", ref("needs.main.outputs.paid")]],
)


def code_of(document: dict[str, Any]) -> list[str]:
    steps = [step for job in document["jobs"] for step in job["steps"]]
    return sorted({digest("code", step["code"].encode()) for step in steps if step["kind"] == "pure"})


def define(story: Story, document: dict[str, Any], alter: Alter | None = None, by: str = "gate") -> int:
    body = {"digest": doc_digest("workflow", document), "document": document}
    if alter is not None:
        alter(body)
    return story.add("workflow.defined", by, [], body)


def receive(story: Story, source: str, event: str, payload: Any, key: str = "", alter: Alter | None = None) -> int:
    raw = canonical([source, event, payload])
    body = {"source": source, "event": event, "key": key, "payload": payload, "digest": digest("event", raw),
            "scheme": "hmac", "evidence": {"at": None}}  # fmt: skip
    if alter is not None:
        alter(body)
    return story.add("event.received", "gate", [], body)


@dataclass
class Flow:
    """A run of a definition, told by hand."""

    story: Story
    document: dict[str, Any]
    run: str
    agent: str = "payer"
    subject: str = ""  # of a sealed run: whose the values are

    def veiled(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body as a sealed run has it; what it does not show is kept for whoever discloses it."""
        holder = body.get("workflow", body)
        member = next(name for name in ("inputs", "output", "outputs") if name in holder)
        if member == "output" and body["status"] != "ok":
            member = "message"
        seq = len(self.story.log.leaves)
        value = self.story._seal(seq, f"${member}", holder[member], f"{self.story.label}/{seq}")
        if holder is not body:
            return {**body, "workflow": {**holder, member: value}, "subject": self.subject}
        unsaid = {"input": None, "result": None} if "output" in body else {}
        return {**body, **unsaid, member: value, "subject": self.subject}

    def streams(self, named: bool = False) -> list[str]:
        more = [stream("w", self.document["name"])] if named else []
        return [*self.story.streams(self.agent, self.run), *more]

    def _add(self, kind: str, body: dict[str, Any], alter: Alter | None) -> int:
        body = {"run": self.run, "agent": self.agent, **body}
        if self.subject and kind in ("compute.executed", "step.resumed", "run.ended"):
            body = self.veiled(body)
        if alter is not None:
            alter(body)
        ends = kind == "run.ended"
        return self.story.add(kind, f"agent:{self.agent}" if ends else "gate", self.streams(ends), body)

    def compute(
        self, place: str, code: str, inputs: dict[str, Any], output: dict[str, Any], alter: Alter | None = None
    ) -> int:
        body = {
            "place": place,
            "attempt": 1,
            "engine": ENGINE,
            "code": digest("code", code.encode()),
            "input": doc_digest("value", inputs),
            "status": "ok",
            "output": output,
            "result": doc_digest("value", output),
            "message": "",
            "ticks": 0,
            "limits": LIMITS,
        }
        return self._add("compute.executed", body, alter)

    def act(
        self, place: str, args: dict[str, Any], answer: Answer = ALLOWED, attempt: int = 1, tool: str = TRANSFER,
        **more: Any,
    ) -> Action:  # fmt: skip
        return self.story.decide(self.run, f"{place}:{attempt}", tool, args, answer, **more)

    def wait(self, place: str, what: dict[str, Any], timeout_s: int | None, alter: Alter | None = None) -> int:
        until = None if timeout_s is None else self.story.now + (timeout_s + 1) * 1_000_000
        return self._add("step.waiting", {"place": place, "for": what, "until": until}, alter)

    def resume(
        self, place: str, code: str, outputs: dict[str, Any] | None = None, event: int | None = None,
        status: str | None = None, alter: Alter | None = None,
    ) -> int:  # fmt: skip
        status = status or ("failure" if code in ("timeout", "cancelled") else "success")
        body = {"place": place, "status": status, "code": code, "event": event, "outputs": outputs or {}}
        return self._add("step.resumed", body, alter)

    def cancel(self, reason: str = "no longer wanted", person: str = "controller", alter: Alter | None = None) -> int:
        return self._add("run.cancelled", {"reason": reason, "person": person}, alter)

    def end(self, status: str, alter: Alter | None = None, **members: Any) -> int:
        result = {"name": self.document["name"], "status": status, "outputs": {}, "undone": [], "left": [], **members}
        return self._add("run.ended", {"reason": "", "workflow": result}, alter)

    def migrate(self, to: dict[str, Any], person: str = "controller", signed: dict[str, Any] | None = None) -> int:
        names = {"from": doc_digest("workflow", self.document), "to": doc_digest("workflow", to)}
        doc = {"v": 1, "deployment": DEPLOYMENT, "run": self.run, **names, "reason": "the note was wrong"}
        key = person_key(person)
        body = {"run": self.run, "agent": self.agent, **names, "reason": doc["reason"], "person": person,
                "key": key.text, "sig": key.sign_doc("migration", signed or doc)}  # fmt: skip
        return self.story.add("run.migrated", f"person:{person}", self.streams(), body)


def begin(
    story: Story,
    document: dict[str, Any],
    inputs: dict[str, Any],
    trigger: dict[str, Any] | None = None,
    parent: dict[str, Any] | None = None,
    alter: Alter | None = None,
    agent: str = "payer",
    mandate: str | None = None,
    subject: str = "",
) -> Flow:
    """A run of a definition begins, under the root mandate unless another is given; with a `subject`, a sealed one."""
    run = "run_" + seeded(f"run/{story.label}/{len(story.runs)}").hex()
    mandate = mandate or root_of_story(story)
    story.runs[run] = (agent, mandate)
    flow = Flow(story, document, run, agent, subject)
    workflow = {
        "definition": doc_digest("workflow", document),
        "name": document["name"],
        "bundle": story.bundle,
        "code": code_of(document),
        "inputs": dict(inputs),
        "trigger": trigger or {"kind": "manual", "event": "", "record": None},
        "parent": parent,
    }
    body = {"run": run, "agent": agent, "mandate": mandate, "purpose": "", "workflow": workflow}
    body = flow.veiled(body) if subject else body
    if alter is not None:
        alter(body)
    story.add("run.started", f"agent:{agent}", flow.streams(named=True), body)
    return flow


def bounded(
    story: Story, parent: Flow, place: str, spec: dict[str, Any], given: dict[str, Any], alter: Alter | None = None
) -> Flow:
    """The run of an agent step; `given` is what its step evaluates."""
    mandate = story.runs[child(story)][1]
    run = "run_" + seeded(f"run/{story.label}/{len(story.runs)}").hex()
    story.runs[run] = (spec["agent"], mandate)
    boundary = {name: spec[name] for name in ("tools", "calls", "budget", "outputs")} | given
    boundary |= {"parent": parent.run, "place": place, "until": story.now + (spec["timeout_s"] + 1) * 1_000_000}
    flow = Flow(story, parent.document, run, spec["agent"])
    body = {"run": run, "agent": spec["agent"], "mandate": mandate, "purpose": "", "boundary": boundary}
    if alter is not None:
        alter(body)
    story.add("run.started", f"agent:{spec['agent']}", flow.streams(), body)
    return flow
