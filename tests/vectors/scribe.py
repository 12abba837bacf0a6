"""A gate on paper: writes the records of a deployment, honest unless a caller falsifies one of them.

Facts and budgets are computed here from docs/spec/facts.md; dispositions are stated by the caller, who derived them
by hand (`generate.py` checks the stated ones against the Cedar policies). Attacks pass `alter` or a false answer, and
everything that comes after is consistent with the falsehood: what an insider with every key would write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from acts import Action, fact_value
from build import DEPLOYMENT, ORIGIN, Key, Log, digest, doc_digest, pseudonym, seeded, stream, verifier_key
from bundle import person_key
from fields import bucket, field_of, normal, obligation, request_digest, terms_of
from register import Register
from rungs import ends_of

Alter = Callable[[dict[str, Any]], None]
Answer = tuple[str, str, str, list[str]]
Second = Callable[[dict[str, Any]], dict[str, str]]  # another person's signature of an activation
START_US = 1_793_606_400_000_000  # Monday 2026-11-02 08:00:00 UTC; 09:00 in the bundle's zone
WINTER_US = 1_792_890_000_000_000  # Sunday 2026-10-25 01:00 UTC: the bundle's zone, Europe/Zurich, falls back to +01:00
NEVER = START_US + 400 * 86_400_000_000
ALLOWED: Answer = ("allow", "policy", "allowed", ["pay-known"])
FLAGGED: Answer = ("flag", "policy", "flagged", ["pay-known", "pay-large"])
READ: Answer = ("allow", "policy", "allowed", ["read"])
NOTED: Answer = ("allow", "policy", "allowed", ["note"])
ASK: Answer = ("escalate", "policy", "needs_approval", ["ask-treasury"])
FACT_STAGES = ("policy", "approval", "monitor")
BUDGET_STAGES = ("payee", "obligation", "facts", *FACT_STAGES)


@dataclass
class Escalation:
    action: Action
    body: dict[str, Any]
    salts: str
    due: dict[str, int]  # when the present rung of each ladder ends

    @property
    def waiting(self) -> Answer:
        """What another request for the same obligation gets until people have answered."""
        return "deny", "obligation", "already_waiting", [f"seq:{self.action.seq + 1}"]


@dataclass
class Story:
    label: str
    log_key: Key = field(default_factory=lambda: Key("log"))
    now: int = START_US
    tier: str = "enforcing"
    bundles: list[dict[str, Any]] = field(default_factory=list)
    kills: list[str] = field(default_factory=list)
    activation: int = -1  # the seq of the newest activation
    mandates: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, tuple[str, str]] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    sealed: list[dict[str, Any]] = field(default_factory=list)  # every sensitive value: seq, alias, salt, value
    request_salts: list[dict[str, Any]] = field(default_factory=list)
    register: Register = field(default_factory=Register)
    erased: set[int] = field(default_factory=set)  # seqs whose sealed values are gone
    next_key: Key | None = None  # that the log was handed over to
    stream_of: dict[str, str] = field(default_factory=dict)  # falsifies whose stream an agent's records stand in

    def __post_init__(self) -> None:
        self.log = Log(self.label)

    # --- plumbing ---

    def wait(self, seconds: int) -> None:
        self.now += seconds * 1_000_000

    def add(self, kind: str, by: str, streams: list[str], body: dict[str, Any], **forge: Any) -> int:
        self.wait(1)
        return self.log.append(kind, self.now, by, streams or ["g"], body, **forge)

    def streams(self, agent: str, run: str, payee: str | None = None) -> list[str]:
        names = [stream("a", self.stream_of.get(agent, agent)), stream("r", run)]
        return names if payee is None else [*names, "p." + pseudonym("account", payee)]

    @property
    def bundle(self) -> str:
        return doc_digest("bundle", self.bundles[-1])

    # --- the deployment ---

    def start(self, alter: Alter | None = None) -> int:
        body = {
            "deployment": DEPLOYMENT,
            "version": "0.1.0",
            "schema": 1,
            "log_key": verifier_key(ORIGIN, self.log_key),
            "tier": self.tier,
            "uid": 1000,
            "recovered": len(self.log.leaves),
        }
        if alter is not None:
            alter(body)
        return self.add("gate.started", "gate", [], body)

    def activate(
        self, bundle: dict[str, Any], key: Key | None = None, alter: Alter | None = None, person: str = "activator",
        second: Second | None = None,
    ) -> int:  # fmt: skip
        key = key or person_key(person)
        activation = {
            "deployment": DEPLOYMENT,
            "bundle": doc_digest("bundle", bundle),
            "previous": self.log.digest_of(self.activation) if self.bundles else None,
            "author": bundle["compiled"]["author"],
            "activator": person,
        }
        if alter is not None:
            alter(activation)
        self.register.activated(bundle["compiled"]["payees"], self.now + 1_000_000, first=not self.bundles)
        self.bundles.append(bundle)
        body = {"activation": activation, "key": key.text, "sig": key.sign_doc("activation", activation)}
        if second is not None:
            body["second"] = second(activation)
        self.activation = self.add("policy.activated", f"person:{person}", [], body)
        return self.activation

    def replay(self, seq: int) -> int:
        """Write what a person once signed a second time."""
        record = self.log.records[seq]
        return self.add(record["kind"], record["by"], [], record["body"])

    def grant(self, agent: str, limits: list[list[Any]], parent: str | None = None, **more: Any) -> str:
        """Grant a mandate; `limits` are [amount, over_us] in EUR or [amount, over_us, currency]. Answers its digest."""
        forge = more.pop("forge", {})
        limits = [limit if len(limit) == 3 else [*limit, "EUR"] for limit in limits]
        key = more.pop("key", None) or (person_key("director") if parent is None else Key("agent/payer"))
        mandate = {
            "v": 1,
            "deployment": DEPLOYMENT,
            "parent": parent,
            "principal": "director",
            "agent": agent,
            "agent_key": Key(f"agent/{agent}").text if parent is None else None,
            "tools": ["*"],
            "payees": ["*"],
            "limits": [{"currency": coin, "amount": amount, "over_us": over} for amount, over, coin in limits],
            "named": [],
            "purpose": "pay invoices",
            "not_before": START_US,
            "not_after": NEVER,
            "nonce": seeded(f"mandate/{self.label}/{len(self.mandates)}").hex(),
        } | more
        name = doc_digest("mandate", mandate)
        self.mandates[name] = mandate
        by = f"person:{mandate['principal']}"
        body = {"mandate": mandate, "digest": name, "key": key.text, "sig": key.sign_doc("mandate", mandate)}
        self.add("mandate.granted", by, [], body, **forge)
        return name

    def revoke(self, mandate: str, key: Key | None = None, **forge: Any) -> int:
        doc = {"deployment": DEPLOYMENT, "mandate": mandate, "person": "director", "reason": "the work is done"}
        key = key or person_key("director")
        body = {"revocation": doc, "key": key.text, "sig": key.sign_doc("revocation", doc)}
        return self.add("mandate.revoked", "person:director", [], body, **forge)

    def run(self, agent: str, mandate: str, **forge: Any) -> str:
        run = "run_" + seeded(f"run/{self.label}/{len(self.runs)}").hex()
        self.runs[run] = (agent, mandate)
        body = {"run": run, "agent": agent, "mandate": mandate, "purpose": "invoices of the week"}
        self.add("run.started", f"agent:{agent}", self.streams(agent, run), body, **forge)
        return run

    def kill(self, kind: str, value: str, reason: str = "looks wrong", name: str = "") -> str:
        name = name or "kill_" + seeded(f"kill/{self.label}/{len(self.log.leaves)}", 8).hex()
        body = {"scope": {"kind": kind, "value": value}, "reason": reason, "kill": name}
        self.add("kill.set", "gate", [], body)
        self.kills.append(name)
        return name

    def clear(self, kill: str = "", key: Key | None = None, person: str = "controller") -> int:
        """Clear a kill, else the newest."""
        doc = {"deployment": DEPLOYMENT, "kill": kill or self.kills[-1], "person": person, "reason": "checked"}
        key = key or person_key(person)
        body = {"clearance": doc, "key": key.text, "sig": key.sign_doc("clearance", doc)}
        return self.add("kill.cleared", f"person:{person}", [], body)

    # --- what a decision is made of ---

    def chain(self, mandate: str) -> list[str]:
        names = [mandate]
        while (parent := self.mandates[names[-1]]["parent"]) is not None:
            names.append(parent)
        return names

    def budgets(self, chain: list[str], terms: dict[str, Any], now: int) -> list[list[Any]]:
        if terms["amount"] is None:
            return []
        rows = []
        for name in chain:
            for index, limit in enumerate(self.mandates[name]["limits"]):
                counts = limit["currency"] == "*"
                over, used = limit["over_us"], 1 if counts else terms["amount"]
                if not counts and limit["currency"] != terms["currency"]:
                    continue
                if over != 0:
                    used += sum(
                        1 if counts else a.weight
                        for a in self.intents()
                        if name in a.body["mandates"]
                        and not a.released
                        and (counts or a.body["terms"]["currency"] == limit["currency"])
                        and (over is None or bucket(a.at, over) >= bucket(now, over) - 63)
                    )
                rows.append([name, index, used])
        return rows

    def intents(self) -> list[Action]:
        return [a for a in self.actions if a.body["disposition"] in ("allow", "flag")]

    def facts(self, body: dict[str, Any], now: int) -> dict[str, Any]:
        minute = now // 60_000_000 + (60 if now >= WINTER_US else 120)
        compiled = self.bundles[-1]["compiled"]
        values: dict[str, Any] = {
            "payee_known": body["terms"]["payee"] in {payee["id"] for payee in self.register.payees()},
            "local_minute": minute % 1440,
            "local_weekday": (minute // 1440 + 3) % 7 + 1,  # 1970-01-01 was a Thursday
            "instructed": sorted(k for k, v in body["named"].items() if v in self.named(body["run"])),
        }
        if "facts.local_day" in self.tool(body["tool"])["reads"]:
            day = date(1970, 1, 1) + timedelta(days=minute // 1440)
            values["local_day"] = int(day.strftime("%Y%m%d"))
        for fact in compiled["facts"]:
            if fact["name"] in self.tool(body["tool"])["facts"]:
                if any(field_of(body, name) is None for name in fact["group"]):
                    continue  # the decision is a denial that names this fact
                if fact["kind"] == "details":
                    values[fact["name"]] = self.register.age(body["terms"]["payee"], now)
                else:
                    values[fact["name"]] = fact_value(fact, body, self.intents(), now)
        return values

    def named(self, run: str) -> list[str]:
        names: list[str] = self.mandates[self.runs[run][1]]["named"]
        return names

    def tool(self, name: str) -> dict[str, Any]:
        return next(tool for tool in self.bundles[-1]["compiled"]["tools"] if tool["name"] == name)

    # --- actions ---

    def decide(
        self,
        run: str,
        call_id: str,
        tool: str,
        args: dict[str, Any],
        answer: Answer,
        after: Escalation | None = None,
        lifted: list[str] | None = None,
        alter: Alter | None = None,
        derive: Alter | None = None,
        agent: str | None = None,
        reason: str | None = None,
        because: list[Action] | None = None,
        sealing: tuple[str, ...] | None = None,
        **forge: Any,
    ) -> Action:
        """Write a decision. `derive` falsifies what later digests are made from, `alter` the finished body,
        `sealing` which arguments are sealed.
        """
        agent = agent or self.runs[run][0]
        draft = self.tool(tool)
        now = self.now + 1_000_000
        sensitive = {a["alias"] for a in draft["args"] if a["sensitive"]} if sealing is None else sealing
        salts = after.salts if after else f"{self.label}/{len(self.log.leaves)}"
        position = len(self.log.leaves)
        clear: dict[str, Any] = {}
        for alias, value in args.items():
            clear[alias] = self._seal(position, alias, value, salts) if alias in sensitive else value
        disposition, stage, code, reasons = answer
        body: dict[str, Any] = {
            "id": "act_" + doc_digest("action-id", [agent, run, call_id])[7:39],
            "agent": agent,
            "run": run,
            "call_id": call_id,
            "tool": tool,
            "args": clear,
            "claimed": {
                "because": [cited.body["id"] for cited in because or []],
                "reason": None if reason is None else self._seal(position, "$reason", reason, salts),
                "model": "model-1",
                "trace": "",
            },
            "terms": after.body["terms"] if after else terms_of(args, self.register.payees()),
            "named": {k: pseudonym("named", normal(v)) for k, v in args.items() if not isinstance(v, bool)},
        }
        if not self.named(run):
            body["named"] = {}
        body["action"] = doc_digest("action", {k: body[k] for k in ("run", "call_id", "tool", "args")})
        if derive is not None:
            derive(body)
        body["key"] = "cm_" + doc_digest("provider-key", [DEPLOYMENT, agent, run, call_id, body["action"]])[7:55]
        salt = seeded(f"request/{salts}").hex()
        body["request"] = request_digest(draft, args, body["key"], salt)
        sealed = any(isinstance(value, dict) for value in clear.values())
        body["salt"] = None if sealed else salt
        if sealed:
            self.request_salts.append({"seq": position, "salt": salt})
        body["obligation"] = obligation(draft, args, body["terms"])
        body["mandates"] = self.chain(self.runs[run][1])
        body["budgets"] = self.budgets(body["mandates"], body["terms"], now) if stage in BUDGET_STAGES else []
        body["bundle"] = self.bundle
        body["facts"] = self.facts(body, now) if stage in FACT_STAGES else {}
        body |= {"disposition": disposition, "stage": stage, "code": code, "reasons": reasons}
        body["escalation"] = after.body["escalation"] if after else None
        body["lifted"] = lifted or []
        body["not_after"] = now + draft["dispatch_within_s"] * 1_000_000
        body["tier"] = "observing" if draft["connector"] == "caller" else self.tier
        if alter is not None:
            alter(body)
        by = "gate" if after else f"agent:{agent}"
        seq = self.add("action.decided", by, self.streams(agent, run, body["terms"]["payee"]), body, **forge)
        action = Action(body, seq, self.now)
        self.actions.append(action)
        return action

    def _seal(self, seq: int, alias: str, value: Any, salts: str) -> dict[str, str]:
        salt = seeded(f"field/{salts}/{alias}").hex()
        self.sealed.append({"seq": seq, "alias": alias, "salt": salt, "value": value})
        return {"$sd": doc_digest("field", [salt, alias, value])}

    def settle(
        self,
        action: Action,
        outcome: str = "confirmed",
        amount: int | None = None,
        via: str = "execute",
        output: dict[str, Any] | None = None,
        alter: Alter | None = None,
        stop: bool = True,
        **forge: Any,
    ) -> int:
        """Write an outcome, and the kill of the tool that follows when the provider booked another amount."""
        body = action.body
        terms = body["terms"]
        money = outcome == "confirmed" and terms["amount"] is not None
        paid = terms["amount"] if amount is None else amount
        code = {"confirmed": "ok", "failed": "declined", "unknown": "timeout"}[outcome]
        status = {"confirmed": 200, "failed": 402, "unknown": 0}[outcome]
        settled = {
            **{k: body[k] for k in ("id", "agent", "run", "tool", "terms")},
            "intent": action.seq,
            "intent_digest": self.log.digest_of(action.seq),
            "outcome": outcome,
            "code": "booked_differently" if money and paid != terms["amount"] else code,
            "ref": "tr_" + seeded(f"ref/{body['id']}", 6).hex() if outcome == "confirmed" else "",
            "settled": {"amount": paid, "currency": terms["currency"]} if money else None,
            "http_status": status,
            "request_id": "req_" + seeded(f"req/{body['id']}/{via}", 6).hex() if status else "",
            "response": digest("response", f"{outcome} {body['id']}".encode()) if status else "",
            "attempts": 1,
            "output": output or {},
            "via": via,
            "tier": body["tier"],
        }
        if alter is not None:
            alter(settled)
        seq = self.add(
            "action.settled", "gate", self.streams(body["agent"], body["run"], terms["payee"]), settled, **forge
        )
        action.outcome, action.settled_at = outcome, self.now
        action.output = settled["output"]
        action.settled = settled["settled"]["amount"] if settled["settled"] else None
        if settled["code"] == "booked_differently" and stop:
            self.now -= 1_000_000  # in the same commit
            self.kill("tool", body["tool"], "booked_differently")
        return seq

    # --- escalations ---

    def escalate(
        self,
        run: str,
        call_id: str,
        tool: str,
        args: dict[str, Any],
        ladders: dict[str, list[str]],
        alter: Alter | None = None,
        between: Callable[[], Any] | None = None,
    ) -> Escalation:
        """Decide to ask, and ask; `alter` falsifies the question, `between` writes something before it."""
        ids = sorted(policy for policies in ladders.values() for policy in policies)
        salts = f"{self.label}/{len(self.log.leaves)}"
        action = self.decide(run, call_id, tool, args, ("escalate", "policy", "needs_approval", ids))
        decided = self.log.digest_of(action.seq)
        body = action.body
        raised = {
            "escalation": "esc_" + decided[7:39],
            **{k: body[k] for k in ("id", "agent", "run", "action", "request", "terms", "bundle")},
            "decided": action.seq,
            "decided_digest": decided,
            "ladders": ladders,
            "mandate": body["mandates"][0],
        }
        ends = {name: ends_of(self.bundles[-1]["compiled"], name, self.now) for name in ladders}
        raised["due"] = {name: found[0] for name, found in ends.items()}
        raised["not_after"] = max(found[-1] for found in ends.values())
        if alter is not None:
            alter(raised)
        # The question is put in the same commit as the decision, so at the same time.
        if between is None:
            self.now -= 1_000_000
        else:
            between()
        self.add("escalation.raised", "gate", self.streams(body["agent"], run, body["terms"]["payee"]), raised)
        return Escalation(action, raised, salts, dict(raised["due"]))

    def answer(
        self,
        escalation: Escalation,
        person: str,
        verdict: str = "approve",
        state: str | None = None,
        ladder: str = "treasury",
        key: Key | None = None,
        alter: Alter | None = None,
        signed: tuple[dict[str, Any], str] | None = None,
        rung: int = 1,
        **forge: Any,
    ) -> int:
        """Answer an escalation; `alter` falsifies the document before it is signed, `signed` replays another answer."""
        raised = escalation.body
        doc = {
            "v": 1,
            "deployment": DEPLOYMENT,
            "ladder": ladder,
            "ids": raised["ladders"].get(ladder, []),
            "rung": rung,
            "verdict": verdict,
            "person": person,
            **{k: raised[k] for k in ("escalation", "action", "request", "bundle", "mandate", "terms", "not_after")},
        }
        if alter is not None:
            alter(doc)
        key = key or person_key(person)
        doc, sig = signed or (doc, key.sign_doc("approval", doc))
        body = {
            **{k: raised[k] for k in ("escalation", "id", "agent", "run", "terms")},
            "approval": doc,
            "key": key.text,
            "sig": sig,
            "state": state or {"approve": "approved", "refuse": "refused"}[verdict],
        }
        streams = self.streams(raised["agent"], raised["run"], raised["terms"]["payee"])
        return self.add("escalation.answered", f"person:{person}", streams, body, **forge)

    def expire(self, escalation: Escalation, **more: Any) -> int:
        body = {k: escalation.body[k] for k in ("escalation", "id", "agent", "run", "terms")} | more
        streams = self.streams(body["agent"], body["run"], body["terms"]["payee"])
        return self.add("escalation.expired", "gate", streams, body)

    def again(self, escalation: Escalation, args: dict[str, Any], answer: Answer, **more: Any) -> Action:
        """Decide an escalated action once more, after its answer and in the same commit."""
        body = escalation.action.body
        if self.log.records[-1]["kind"] == "escalation.answered":
            self.now -= 1_000_000
        return self.decide(body["run"], body["call_id"], body["tool"], args, answer, after=escalation, **more)
