"""A small maker of honest evidence packs for this room's tests; what it knows comes from docs/spec alone.

It shares no code with the verifier: canonical bytes are those of `rfc8785`, facts are counted by walking the history.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from verify_bytes import (
    ORIGIN,
    ZERO,
    b64,
    canon,
    checkpoint,
    digest,
    key_text,
    manifest,
    merkle,
    pseudonym,
    public,
    sign,
    tiles,
    verifier_key,
    zipped,
)


def plain(letter: str, name: str) -> str:
    """The stream of an agent or a run, without its letter."""
    return digest("stream", canon([letter, name]))[7:39]


START = 1_760_000_000_000_000
DAY = 86_400_000_000
FAR = START + 400 * DAY

CEDAR = """
@id("pay") permit(principal, action in Action::"money", resource) when { context.facts.payee_known };
@id("look") permit(principal, action in Action::"read", resource);
@id("pay-large") @flag("large") permit(principal, action in Action::"money", resource)
  when { context.facts.payee_known && context.amount > 5000 };
@id("ask") @escalate("finance") forbid(principal, action in Action::"money", resource)
  when { context.amount > Limits::"limits".ask_over };
@id("never") forbid(principal, action in Action::"money", resource) // seen with last_pay, payees and amount_checked
  when { context.amount > Limits::"limits".never_over };
@id("known-fraud") forbid(principal, action in Action::"money", resource)
  when { context has args && context.args has invoice && context.args.invoice == "fraud" };
@id("day-cap") forbid(principal, action in Action::"money", resource) when { context.facts.day_sum > 1000000000 };
"""
SCHEMA = """
entity Agent = {"owner": String};
entity Payee;
entity Limits = {"ask_over": Long, "never_over": Long};
action "money", "read", "change";
action "bank.pay" in [Action::"money"] appliesTo { principal: [Agent], resource: [Payee], context: {
  "amount": Long, "args"?: {"invoice"?: String}, "facts": {"payee_known": Bool, "day_sum": Long}}};
action "erp.read" in [Action::"read"] appliesTo { principal: [Agent], resource: [Payee], context: {} };
"""
DEFINITIONS: list[dict[str, Any]] = [
    {"name": "day_sum", "kind": "window", "of": "amount", "over_us": DAY, "group": ["agent", "currency"], "use": "cap"},
    {"name": "last_pay", "kind": "slot", "of": "", "over_us": DAY, "group": ["agent", "payee"], "use": "floor"},
    {"name": "payees", "kind": "distinct", "of": "payee", "over_us": DAY, "group": ["agent"], "use": "cap"},
    {"name": "amount_checked", "kind": "grounded", "of": "args.amount", "over_us": 0, "group": [], "use": "floor"},
]
for _definition in DEFINITIONS:
    _definition |= {"where": [["tool", ["bank.pay"]]], "tool": "", "field": ""}
DEFINITIONS[3] |= {"where": [], "tool": "erp.read", "field": "amount"}


def argument(name: str, kind: str, role: str, sensitive: bool = False, required: bool = True) -> dict[str, Any]:
    rest = {"enum": [], "pattern": "", "minimum": None, "maximum": None, "chars_max": 200}
    own = {"name": name, "type": kind, "class": role, "alias": name, "required": required, "sensitive": sensitive}
    return own | rest


def tool(name: str, role: str, args: list[dict[str, Any]], facts: list[str], **more: Any) -> dict[str, Any]:
    base = {"name": name, "connector": "bank", "class": role, "args": args, "recovery": "lookup", "once_per": []}
    base |= {
        "once_scope": name,
        "currency": "",
        "reads": [],
        "encoding": "form-v1",
        "key_ttl_s": 86400,
        "timeout_ms": 1000,
    }
    base |= {"settle_lag_s": 60, "dispatch_within_s": 60, "endpoint": f"POST https://bank.example/{name}"}
    return base | {"headers": [["Bank-Version", "1"]], "outputs": [["amount", "integer"]], "facts": facts} | more


PAY = tool(
    "bank.pay",
    "money",
    [
        argument("amount", "integer", "amount"),
        argument("to", "string", "payee"),
        argument("invoice", "string", "reference", required=False),
        argument("memo", "string", "inert", sensitive=True, required=False),
    ],
    ["amount_checked", "day_sum", "last_pay", "payees"],
    once_per=["payee", "invoice"],
    currency="EUR",
    reads=["amount", "args.invoice", "facts.day_sum", "facts.payee_known"],
)
READ = tool("erp.read", "read", [argument("invoice", "string", "reference")], [], encoding="query-v1")


def bundle_document() -> dict[str, Any]:
    people = [
        {"id": name, "name": name, "roles": roles, "keys": [key_text(name)]}
        for name, roles in (
            ("author", ["policy"]),
            ("controller", ["finance"]),
            ("owner", ["operations"]),
            ("principal", ["principal"]),
            ("treasurer", ["finance"]),
        )
    ]
    entities: list[dict[str, Any]] = [
        {"uid": {"type": "Agent", "id": "payer"}, "attrs": {"owner": "owner"}, "parents": []}
    ]
    limits = {"ask_over": 50_000, "never_over": 900_000}
    entities.append({"uid": {"type": "Limits", "id": "limits"}, "attrs": limits, "parents": []})
    entities += [{"uid": {"type": "Payee", "id": f"payee{n}"}, "attrs": {}, "parents": []} for n in range(5)]
    entities += [
        {"uid": {"type": "Payee", "id": name}, "attrs": {}, "parents": []}
        for name in ("$none", "$unknown", "_registered")
    ]
    compiled = {
        "cedar": CEDAR,
        "schema": SCHEMA,
        "entities": json.dumps(entities),
        "limits": limits,
        "facts": DEFINITIONS,
        "tools": [PAY, READ],
        "people": people,
        "agents": [{"id": "payer", "owner": "owner"}],
        "payees": [{"id": f"payee{n}", "name": f"Payee {n}", "account": f"iban {n}"} for n in range(5)],
        "ladders": [
            {"id": "finance", "rungs": [{"roles": ["finance"], "quorum": 2, "deadline_s": 3600, "hours": None}]}
        ],
        "zone": "UTC",
        "currencies": ["EUR"],
        "author": "author",
    }
    return {"v": 1, "source": [["limits.toml", "ask_over = 50000\n"]], "compiled": compiled}


def payee_of(account: str) -> str:
    return account.replace("iban ", "payee") if account.startswith("iban ") else "p:" + pseudonym("payee", account)


def writer(kind: str, body: dict[str, Any]) -> str:
    """`by`, as the table in docs/spec/record.md says."""
    people = {"activation": "activator", "mandate": "principal", "revocation": "person"}
    people |= {"clearance": "person", "approval": "person"}
    for document, member in people.items():
        if document in body and "sig" in body:
            return f"person:{body[document][member]}"
    if kind in ("run.started", "run.ended", "action.refused"):
        return f"agent:{body['agent']}"
    return f"agent:{body['agent']}" if kind == "action.decided" and body["escalation"] is None else "gate"


class Maker:
    """One lane: `add` appends any record; the named methods append honest ones."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.now = START
        self.streams: dict[str, tuple[int, str]] = {}
        self.bundle = canon(bundle_document())
        self.bundle_digest = digest("bundle", self.bundle)
        self.opened: list[dict[str, Any]] = []
        self.salts: list[dict[str, Any]] = []
        self.sealed = 0
        self.intents: list[dict[str, Any]] = []
        self.taken: dict[str, int] = {}
        self.mandate = ""

    def add(self, kind: str, body: dict[str, Any], **changes: Any) -> dict[str, Any]:
        self.now += 1_000_000
        streams: dict[str, Any] = {}
        if kind.startswith(("action.", "run.", "escalation.")):
            names = [("a", body["agent"]), ("r", body["run"]), ("p", (body.get("terms") or {}).get("payee"))]
            for letter, name in names:
                if name:
                    stream = f"{letter}.{pseudonym(letter, name) if letter == 'p' else plain(letter, name)}"
                    last = self.streams.get(stream, (-1, ZERO))
                    streams[stream] = [last[0] + 1, last[1]]
        else:
            last = self.streams.get("g", (-1, ZERO))
            streams["g"] = [last[0] + 1, last[1]]
        seq = len(self.records)
        record = {
            "v": 1,
            "lane": "l0",
            "seq": seq,
            "prev": digest("record", self.raw[-1]) if self.raw else ZERO,
            "kind": kind,
            "at": self.now,
            "nonce": hashlib.sha256(str(seq).encode()).hexdigest()[:32],
            "by": writer(kind, body),
            "streams": streams,
            "body": body,
        } | changes
        raw = canon(record)
        for stream, (position, _) in streams.items():
            self.streams[stream] = (position, digest("record", raw))
        self.records.append(record)
        self.raw.append(raw)
        return record

    def open(self) -> Maker:
        """gate.started, the bundle, the mandate and its run."""
        log_key = verifier_key(ORIGIN, public("log"))
        started = {"deployment": "acme", "version": "0.1.0", "schema": 1, "log_key": log_key}
        self.add("gate.started", started | {"tier": "enforcing", "uid": 1000, "recovered": 0})
        activation = {"deployment": "acme", "bundle": self.bundle_digest, "previous": None}
        activation |= {"author": "author", "activator": "principal"}
        self.add("policy.activated", {"activation": activation, **sign("principal", "activation", activation)})
        self.mandate = self.grant("principal", None, nonce="root")
        self.add("run.started", {"run": "run1", "agent": "payer", "mandate": self.mandate, "purpose": "pay invoices"})
        return self

    def grant(self, signer: str, parent: str | None, **changes: Any) -> str:
        mandate = {"v": 1, "deployment": "acme", "parent": parent, "principal": "principal", "agent": "payer"}
        mandate |= {"agent_key": key_text("payer"), "tools": ["*"], "payees": ["*"], "purpose": "invoices"}
        limits = [
            {"currency": "EUR", "amount": 800_000, "over_us": 0},
            {"currency": "EUR", "amount": 90_000_000_000, "over_us": DAY},
            {"currency": "EUR", "amount": 900_000_000_000, "over_us": None},
        ]
        mandate |= {"limits": limits, "named": [], "not_before": START, "not_after": FAR, "nonce": "n"} | changes
        name = digest("mandate", canon(mandate))
        self.add("mandate.granted", {"mandate": mandate, "digest": name, **sign(signer, "mandate", mandate)})
        return name

    def decide(self, call: str, name: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
        """An honest decision about an action; `more` replaces members of the body after everything else."""
        because, escalation, ids = more.pop("because", []), more.pop("escalation", None), more.pop("lifted", [])
        now = self.now + 1_000_000
        recorded = {alias: self._seal(alias, value) if alias == "memo" else value for alias, value in args.items()}
        action = digest("action", canon({"run": "run1", "call_id": call, "tool": name, "args": recorded}))
        identity = digest("action-id", canon(["payer", "run1", call]))
        key = "cm_" + digest("provider-key", canon(["acme", "payer", "run1", call, action]))[7:55]
        money = name == "bank.pay"
        terms: dict[str, Any] = dict.fromkeys(("amount", "currency", "payee"))
        if money:
            terms = {"amount": args["amount"], "currency": "EUR", "payee": payee_of(args["to"])}
        salt = hashlib.sha256(call.encode()).hexdigest()[:32]
        if "memo" in args:
            self.salts.append({"seq": len(self.records), "salt": salt})
        pairs = [["invoice", args.get("invoice", "").casefold()], ["payee", terms["payee"] or ""]]
        body = {"id": "act_" + identity[7:39], "agent": "payer", "run": "run1", "call_id": call, "tool": name}
        body |= {"args": recorded, "action": action, "request": request_digest(name, args, key, salt), "key": key}
        body |= {"salt": None if "memo" in args else salt, "terms": terms, "named": {}, "mandates": [self.mandate]}
        body |= {"claimed": {"because": because, "reason": None, "model": "m", "trace": ""}}
        body["obligation"] = digest("obligation", canon([name, pairs])) if money else None
        body |= {"bundle": self.bundle_digest, "escalation": escalation, "lifted": [], "tier": "enforcing"}
        body |= {"not_after": now + 60_000_000}
        body |= self._answer(body, now, escalation is not None, ids) | more
        record = self.add("action.decided", body)
        if body["disposition"] in ("allow", "flag"):
            self.intents.append(record | {"outcome": None})
            if body["obligation"]:
                self.taken.setdefault(body["obligation"], record["seq"])
        return record

    def _seal(self, alias: str, value: Any) -> dict[str, str]:
        salt = hashlib.sha256(f"{alias}{len(self.records)}".encode()).hexdigest()[:32]
        self.opened.append({"seq": len(self.records), "alias": alias, "salt": salt, "value": value})
        self.sealed += 1
        return {"$sd": digest("field", canon([salt, alias, value]))}

    def _answer(self, body: dict[str, Any], now: int, approved: bool, ids: list[str]) -> dict[str, Any]:
        terms, money = body["terms"], body["tool"] == "bank.pay"
        budgets = self.budgets(terms, now) if money else []
        early = {"disposition": "deny", "budgets": [], "facts": {}, "reasons": [self.mandate]}
        limits = self.records[2]["body"]["mandate"]["limits"]
        if money and any(row[2] > limits[row[1]]["amount"] for row in budgets):
            return early | {"stage": "mandate", "code": "mandate_limit"}
        if body["obligation"] in self.taken:
            reasons = [f"seq:{self.taken[body['obligation']]}"]
            late = early | {"budgets": budgets, "reasons": reasons}
            return late | {"stage": "obligation", "code": "duplicate_obligation"}
        minutes = now // 60_000_000
        facts: dict[str, Any] = {"payee_known": terms["payee"] in [f"payee{n}" for n in range(5)]}
        facts |= {"local_minute": minutes % 1440, "local_weekday": (minutes // 1440 + 3) % 7 + 1, "instructed": []}
        if money:
            facts |= self.facts(body, now)
        answer = {"budgets": budgets, "facts": facts, "stage": "policy"}
        if not money:
            return answer | {"disposition": "allow", "code": "allowed", "reasons": ["look"]}
        forbids = [rule for rule, over in (("ask", 50_000), ("never", 900_000)) if terms["amount"] > over]
        if forbids == ["ask"] and not approved:
            return answer | {"disposition": "escalate", "code": "needs_approval", "reasons": forbids}
        if forbids and not approved:
            return answer | {"disposition": "deny", "code": "denied_by_policy", "reasons": forbids}
        if not facts["payee_known"]:
            return answer | {"disposition": "deny", "code": "not_permitted", "reasons": []}
        large = terms["amount"] > 5000
        permits = ["pay", "pay-large"] if large else ["pay"]
        answer |= {"disposition": "flag" if large else "allow", "code": "flagged" if large else "allowed"}
        return answer | {"reasons": permits, "lifted": ids}

    def _events(self, now: int, over: int | None, reach: int) -> list[dict[str, Any]]:
        width = -(-over // 63) if over else None
        found = [item for item in self.intents if item["body"]["tool"] == "bank.pay"]
        return [i for i in found if width is None or i["at"] // width >= now // width - reach]

    @staticmethod
    def _weight(intent: dict[str, Any]) -> int:
        if intent["outcome"] is None:
            return int(intent["body"]["terms"]["amount"])
        if intent["outcome"]["outcome"] == "failed":
            return 0
        settled = intent["outcome"]["settled"]
        return int(settled["amount"] if settled else intent["body"]["terms"]["amount"])

    def budgets(self, terms: dict[str, Any], now: int) -> list[list[Any]]:
        rows: list[list[Any]] = []
        for index, over in enumerate((0, DAY, None)):
            earlier = [] if over == 0 else self._events(now, over, 63)
            rows.append([self.mandate, index, sum(map(self._weight, earlier)) + terms["amount"]])
        return rows

    def facts(self, body: dict[str, Any], now: int) -> dict[str, Any]:
        terms = body["terms"]
        recent = self._events(now, DAY, 63)
        confirmed = [i for i in self.intents if i["outcome"] and i["outcome"]["outcome"] == "confirmed"]
        ages = [
            now - i["settled_at"]
            for i in confirmed
            if i["body"]["terms"]["payee"] == terms["payee"] and i["body"]["tool"] == "bank.pay"
        ]
        cited = [
            i["outcome"]["output"].get("amount")
            for i in confirmed
            if i["body"]["id"] in body["claimed"]["because"] and i["body"]["tool"] == "erp.read"
        ]
        last: dict[str, Any] = {"known": False}
        if ages and min(ages) <= DAY:
            last = {"known": True, "age_s": min(ages) // 1_000_000}
        return {
            "day_sum": sum(map(self._weight, recent)) + terms["amount"],
            "last_pay": last,
            "payees": len({i["body"]["terms"]["payee"] for i in recent} | {terms["payee"]}),
            "amount_checked": {"known": bool(cited), "equal": terms["amount"] in cited},
        }

    def settle(self, intent: dict[str, Any], outcome: str = "confirmed", **more: Any) -> dict[str, Any]:
        body = {name: intent["body"][name] for name in ("id", "agent", "run", "tool", "terms")}
        body |= {"intent": intent["seq"], "intent_digest": digest("record", self.raw[intent["seq"]])}
        body |= {"outcome": outcome, "code": "ok", "ref": "r", "settled": None, "http_status": 200, "response": ""}
        body |= {"request_id": "q", "attempts": 1, "output": {}, "via": "execute", "tier": "enforcing"} | more
        record = self.add("action.settled", body)
        for item in self.intents:
            if item["seq"] == intent["seq"] and outcome != "unknown":
                item |= {"outcome": body, "settled_at": record["at"]}
                if outcome == "failed":
                    self.taken.pop(intent["body"]["obligation"], None)
        return record

    def escalate(self, decided: dict[str, Any]) -> dict[str, Any]:
        body, name = decided["body"], digest("record", self.raw[decided["seq"]])
        raised = {"escalation": "esc_" + name[7:39], "decided": decided["seq"], "decided_digest": name}
        raised |= {item: body[item] for item in ("id", "agent", "run", "action", "request", "terms", "bundle")}
        raised |= {"ladders": {"finance": ["ask"]}, "mandate": self.mandate, "not_after": decided["at"] + 3_600_000_000}
        raised |= {"due": {"finance": raised["not_after"]}}
        return self.add("escalation.raised", raised)

    def answer(self, raised: dict[str, Any], person: str, state: str, **more: Any) -> dict[str, Any]:
        body = raised["body"]
        approval = {"v": 1, "deployment": "acme", "ladder": "finance", "ids": ["ask"], "rung": 1, "person": person}
        approval |= {item: body[item] for item in ("escalation", "action", "request", "bundle", "mandate", "terms")}
        approval |= {"verdict": "approve", "not_after": body["not_after"]} | more
        answered = {item: body[item] for item in ("escalation", "id", "agent", "run", "terms")}
        answered |= {"approval": approval, "state": state, **sign(person, "approval", approval)}
        return self.add("escalation.answered", answered)

    def pack(self, key: str = "log", change: Callable[[dict[str, bytes]], None] | None = None, **more: Any) -> bytes:
        """The pack of all records; `change` may alter members before they are signed."""
        members = tiles(self.raw)
        members["log/checkpoint"] = checkpoint(self.raw, key)
        members[f"policy/{self.bundle_digest[7:]}.json"] = self.bundle
        members["disclosures.json"] = canon({"v": 1, "fields": self.opened, "requests": self.salts})
        members["README.txt"] = b"An evidence pack.\n"
        if change:
            change(members)
        predicate = {"v": 1, "deployment": "acme", "lane": "l0", "origin": ORIGIN, "size": len(self.raw)}
        predicate |= {"root": b64(self.root()), "withheld": 0, "erased": 0, "disclosed": self.sealed} | more
        members["manifest.sigstore.json"] = manifest(members, predicate, key)
        return zipped(members)

    def root(self, size: int | None = None) -> bytes:
        return merkle([hashlib.sha256(b"\0" + raw).digest() for raw in self.raw[:size]])

    def trust(self, *sizes: int, **more: Any) -> dict[str, Any]:
        """A trust file's document with heads of these sizes (the whole log when none is named)."""
        names = ("author", "controller", "leaver", "owner", "principal", "treasurer")
        people = {name: key_text(name) for name in names}
        heads = [{"size": n, "root": b64(self.root(n)), "source": "kept"} for n in sizes or (len(self.raw),)]
        log = {"origin": ORIGIN, "keys": [verifier_key(ORIGIN, public("log"))]}
        return {"v": 1, "log": log, "people": people, "heads": heads} | more


def request_digest(name: str, args: dict[str, Any], key: str, salt: str) -> str:
    url, headers, data = f"https://bank.example/{name}", [["Bank-Version", "1"]], b""
    pairs = {alias: str(value) for alias, value in args.items()}
    if name == "bank.pay":
        pairs["metadata[countermark_key]"] = key
        headers += [["Content-Type", "application/x-www-form-urlencoded"], ["Idempotency-Key", key]]
    form = "&".join(f"{quote(item, safe='')}={quote(pairs[item], safe='')}" for item in sorted(pairs))
    if name == "bank.pay":
        data = form.encode()
    else:
        url += "?" + form
    body = digest("body", salt.encode() + data)
    return digest("request", canon({"method": "POST", "url": url, "headers": headers, "body": body}))


def story() -> Maker:
    """A lane with every disposition: read, pay with a cited amount, duplicate, flag, escalation, refusal, failure."""
    maker = Maker().open()
    read = maker.decide("c0", "erp.read", {"invoice": "I-1"})
    maker.settle(read, output={"amount": 1200})
    paid = maker.decide(
        "c1", "bank.pay", {"amount": 1200, "to": "iban 0", "invoice": "I-1"}, because=[read["body"]["id"]]
    )
    maker.settle(paid, settled={"amount": 1200, "currency": "EUR"})
    maker.decide("c2", "bank.pay", {"amount": 1200, "to": "iban 0", "invoice": "I-1"})
    failed = maker.decide("c3", "bank.pay", {"amount": 7000, "to": "iban 1", "invoice": "I-2", "memo": "for Jane"})
    maker.settle(failed, "unknown")
    maker.settle(failed, "failed", via="lookup")
    big = {"amount": 60_000, "to": "iban 2", "invoice": "I-3"}
    raised = maker.escalate(maker.decide("c4", "bank.pay", big))
    maker.answer(raised, "controller", "pending")
    maker.answer(raised, "treasurer", "approved")
    again = maker.decide("c4", "bank.pay", big, escalation=raised["body"]["escalation"], lifted=["ask"])
    maker.settle(again)
    maker.decide("c5", "bank.pay", {"amount": 5, "to": "stranger", "invoice": "I-4"})
    maker.decide("c6", "bank.pay", {"amount": 850_000, "to": "iban 2", "invoice": "I-5"})
    return maker
