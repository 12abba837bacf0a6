"""V09 and V10: who was entitled to what: activations, mandates, revocations, clearances, approvals."""

from typing import Any

from countermark_verify import ap2, canon
from countermark_verify.bundle import Bundle
from countermark_verify.crypto import parse_key, signed_text
from countermark_verify.errors import Malformed
from countermark_verify.escalation import Escalation, rung_of
from countermark_verify.facts import COUNT
from countermark_verify.report import Ledger
from countermark_verify.state import State
from countermark_verify.trust import Trust

MONITOR_US_MAX = 14 * 86_400 * 1_000_000


class Authority:
    """Checks every record that a person or an agent signed against the auditor's keys."""

    def __init__(self, ledger: Ledger, trust: Trust | None, state: State) -> None:
        self._ledger = ledger
        self._people = trust.people if trust else {}
        self._state = state
        # Keys that the trust file lacks, enrolled by people whose keys it has: key -> whose, where, signed by whom.
        self.vouched: dict[str, tuple[str, int, list[str]]] = {}
        self._checks = {
            "policy.activated": self._activated,
            "mandate.granted": self._granted,
            "mandate.accepted": self._accepted,
            "mandate.revoked": self._revoked,
            "kill.cleared": self._cleared,
            "escalation.answered": self._answered,
        }

    def check(self, position: int, record: dict[str, Any]) -> None:
        check = self._checks.get(record["kind"])
        if check is not None:
            step = "V09" if record["kind"] == "policy.activated" else "V10"
            self._ledger.ran(step, 1)
            check(position, record, record["body"])

    def vouch(self, key: str, person: str, seq: int, by: list[str]) -> None:
        """A key was enrolled under signatures that the auditor can check: from here on it is known as the person's."""
        if key not in self._people.get(person, ()):
            self.vouched[key] = (person, seq, by)

    def listed(self) -> list[dict[str, Any]]:
        """What was vouched for, in the order of the records."""
        rows = sorted(self.vouched.items(), key=lambda item: item[1][1])
        return [{"person": person, "key": key, "seq": seq, "by": by} for key, (person, seq, by) in rows]

    def by_person(self, step: str, code: str, seq: int, person: str, body: dict[str, Any], signed: bytes) -> bool:
        """The signature verifies with the key that the record names, and the auditor knows that key: True."""
        if not signed_text(body["key"], body["sig"], signed):
            self._ledger.refute(code, f"the signature of {person} does not verify", seq)
            return False
        known, enrolled = list(self._people.get(person, ())), self._state.roll.enrolled.get(body["key"])
        if body["key"] in known or self.vouched.get(body["key"], ("",))[0] == person:
            return True
        if enrolled is not None and enrolled.person == person:
            how = "by keys that the trust file has not"
            if len(enrolled.by) == 1 and enrolled.by != (person,):
                how = f"by {enrolled.by[0]} alone, which is enough in a test only"
            message = f"the key of {person} was enrolled at seq {enrolled.seq} {how}"
            self._ledger.lack(f"{step}.no_key", message, seq)
        elif not known:
            self._ledger.lack(f"{step}.no_key", f"the trust file has no key of {person}", seq)
        else:
            self._ledger.refute(code, f"signed with a key that is not {person}'s", seq, known, body["key"])
        return False

    def deployment(self, code: str, seq: int, document: dict[str, Any]) -> None:
        if document["deployment"] != self._state.deployment:
            self._ledger.refute(
                code, "made for another deployment", seq, self._state.deployment, document["deployment"]
            )

    def _activated(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        activation = body["activation"]
        self.deployment("V09.signature", seq, activation)
        signed = canon.signing_bytes("activation", activation)
        self.by_person("V09", "V09.signature", seq, activation["activator"], body, signed)
        if activation["previous"] != self._state.activation:
            self._ledger.refute(
                "V09.chain", "not the activation before", seq, self._state.activation, activation["previous"]
            )
        bundle = self._state.bundles.get(activation["bundle"])
        judge = bundle if self._state.activation is None else self._state.bundle
        activator = activation["activator"]
        if judge is not None and not self._state.roll.holds(judge, activator, body["key"]):
            self._ledger.refute("V09.signature", f"signed with a key that is not enrolled for {activator}", seq)
        if bundle is not None and bundle.author != activation["author"]:
            self._ledger.refute("V09.bundle", "another author wrote it", seq, bundle.author, activation["author"])
        self._second(seq, body, signed, judge)
        if bundle is not None:
            self._monitored(seq, record["at"], body, bundle, judge)

    def _second(self, seq: int, body: dict[str, Any], signed: bytes, judge: Bundle | None) -> None:
        """The signature of the second person, wherever there is one: of the same document, with an enrolled key."""
        row = body.get("second")
        if row is None:
            return
        self.by_person("V09", "V09.signature", seq, row["person"], row, signed)
        if judge is not None and not self._state.roll.holds(judge, row["person"], row["key"]):
            self._ledger.refute("V09.signature", f"signed with a key that is not enrolled for {row['person']}", seq)

    def _monitored(self, seq: int, at: int, body: dict[str, Any], bundle: Bundle, judge: Bundle | None) -> None:
        """To monitor a tool takes two people, of whom one is independent, and lasts a fortnight at most."""
        refute, row = self._ledger.refute, body.get("second")
        until = {name: tool["monitor"] for name, tool in bundle.tools.items() if "monitor" in tool}
        for name, end in until.items():
            if not at < end <= at + MONITOR_US_MAX:
                refute("V09.monitor", f"{name} is monitored for no time, or too long", seq, at + MONITOR_US_MAX, end)
        if bool(until) != (row is not None):
            refute("V09.monitor", "two people sign exactly what monitors a tool", seq, sorted(until), row)
        if not until or row is None:
            return
        people = [body["activation"]["activator"], row["person"]]
        if len(set(people)) < len(people):
            refute("V09.monitor", f"{people[0]} signed twice", seq)
        if judge is not None and not any(judge.independent(person, bundle.author) for person in people):
            refute("V09.monitor", "nobody independent signed", seq, None, people)

    def enrolled(self, code: str, seq: int, person: str, key: str, role: str | None = None) -> None:
        """The key signs for the person now, who has the role where one is needed."""
        bundle = self._state.bundle
        if bundle is None:
            self._ledger.lack("V10.no_role", f"no bundle in force says who {person} is", seq)
            return
        known = bundle.people.get(person)
        if known is None or not self._state.roll.holds(bundle, person, key):
            self._ledger.refute(code, f"signed with a key that is not enrolled for {person}", seq)
        elif role is not None and role not in known["roles"]:
            self._ledger.refute(code, f"{person} does not have the role {role}", seq)

    def _granted(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        mandate = body["mandate"]
        refute = self._ledger.refute
        raw = canon.render(mandate)
        actual = canon.digest("mandate", raw)
        if actual != body["digest"]:
            refute("V10.mandate", "the digest is not the mandate's", seq, actual, body["digest"])
        if body["digest"] in self._state.mandates:
            refute("V10.mandate", "the mandate was granted before", seq)
        if reason := self._state.too_long(mandate):
            refute("V10.mandate", reason, seq)
        self.deployment("V10.mandate", seq, mandate)
        if self._state.bundle is not None and mandate["agent"] not in self._state.bundle.owners:
            refute("V10.mandate", "granted to an agent that the policy does not know", seq, None, mandate["agent"])
        if mandate["not_before"] >= mandate["not_after"]:
            refute("V10.mandate", "the validity is empty", seq)
        if any((limit["currency"], limit["over_us"]) == (COUNT, 0) for limit in mandate["limits"]):
            refute("V10.mandate", "a limit that counts payments within a single one", seq)
        if mandate["agent_key"] is not None:
            try:
                parse_key(mandate["agent_key"])
            except Malformed as error:
                refute("V10.mandate", f"the agent's key {error}", seq)
        parent = self._parent(seq, mandate)
        parent_key = parent["agent_key"] if parent is not None else None
        signed = canon.signing_bytes("mandate", mandate)
        if parent_key is not None and body["key"] == parent_key:
            if not signed_text(body["key"], body["sig"], signed):
                refute("V10.mandate", "the signature of the parent's agent does not verify", seq)
            if parent is not None and (granted := parent["principal"]) != mandate["principal"]:
                refute("V10.mandate", "another principal than its parent's", seq, granted, mandate["principal"])
            return
        self.by_person("V10", "V10.mandate", seq, mandate["principal"], body, signed)
        self.enrolled("V10.mandate", seq, mandate["principal"], body["key"], "principal")

    def _accepted(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        """What an AP2 document became follows from its text, the bundle in force and what was accepted before."""
        refute, bundle = self._ledger.refute, self._state.bundle
        if bundle is None:
            self._ledger.lack("V10.no_role", "no bundle in force says whose AP2 mandates count", seq)
            return
        source = bundle.ap2.get(body["source"])
        if source is None or "principal" not in bundle.people.get(source["principal"], {"roles": []})["roles"]:
            refute("V10.ap2", "no source of AP2 mandates that a principal answers for", seq, None, body["source"])
            return
        place = ap2.Place(source, self._state.deployment, bundle.currencies, record["at"], self._redeemed)
        try:
            document, redeems = ap2.derive(body["ap2"], place)
        except Malformed as error:
            refute("V10.ap2", f"the AP2 document {error}", seq)
            return
        if document != body["mandate"]:
            refute("V10.ap2", "another mandate than the AP2 document stands for", seq, document, body["mandate"])
        digest = canon.digest("mandate", canon.render(document))
        if (digest, redeems) != (body["digest"], body["redeems"]):
            refute("V10.ap2", "another digest, or other redemption names", seq, redeems, body["redeems"])
        if used := sorted(set(redeems) & self._state.redeemed.keys()):
            refute("V10.ap2", "redeemed before", seq, None, used)
        if reason := self._state.too_long(document):
            refute("V10.mandate", reason, seq)
        self._parent(seq, document)

    def _redeemed(self, name: str) -> dict[str, Any] | None:
        known = self._state.mandates.get(self._state.redeemed.get(name, ""))
        return known.document if known is not None else None

    def _parent(self, seq: int, child: dict[str, Any]) -> dict[str, Any] | None:
        """Checks a child against its parent, and answers the parent's document: its agent may have signed the child."""
        refute = self._ledger.refute
        if child["parent"] is None:
            return None
        parent = self._state.mandates.get(child["parent"])
        if parent is None:
            refute("V10.mandate", "the parent was never granted", seq, child["parent"])
            return None
        wide = parent.document
        for name in ("tools", "payees", "named"):
            everything = name != "named" and "*" in wide[name]
            if not everything and (extra := sorted(set(child[name]) - set(wide[name]))):
                refute("V10.mandate", f"wider than its parent in {name}", seq, wide[name][:20], extra[:20])
        for name, outside in (
            ("not_before", child["not_before"] < wide["not_before"]),
            ("not_after", child["not_after"] > wide["not_after"]),
        ):
            if outside:
                refute("V10.mandate", f"wider than its parent in {name}", seq, wide[name], child[name])
        own, given = child["purpose"], wide["purpose"]
        if given not in ("", own) and not own.startswith(given + ": "):
            refute("V10.mandate", "another purpose than its parent's, or a wider one", seq, given, own)
        self._limits(seq, child["limits"], wide["limits"])
        return wide

    def _limits(self, seq: int, child: list[dict[str, Any]], wide: list[dict[str, Any]]) -> None:
        """No larger amount over the same time, and no currency that the parent's limits lack, if it has any."""
        refute = self._ledger.refute
        currencies = {limit["currency"] for limit in wide} - {COUNT}
        for limit in child:
            currency = limit["currency"]
            if currencies and currency not in {*currencies, COUNT}:
                refute("V10.mandate", "a limit in a currency that its parent lacks", seq, sorted(currencies), currency)
            same = [
                item["amount"] for item in wide if (item["currency"], item["over_us"]) == (currency, limit["over_us"])
            ]
            if same and limit["amount"] > min(same):
                refute(
                    "V10.mandate", f"a larger limit in {currency} than its parent's", seq, min(same), limit["amount"]
                )

    def _revoked(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        revocation = body["revocation"]
        self.deployment("V10.mandate", seq, revocation)
        if revocation["mandate"] not in self._state.mandates:
            self._ledger.refute("V10.mandate", "revokes a mandate that was never granted", seq)
        self.enrolled("V10.mandate", seq, revocation["person"], body["key"])
        signed = canon.signing_bytes("revocation", revocation)
        self.by_person("V10", "V10.mandate", seq, revocation["person"], body, signed)

    def _cleared(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        clearance = body["clearance"]
        self.deployment("V10.clearance", seq, clearance)
        if clearance["kill"] not in self._state.kills:
            self._ledger.refute("V10.clearance", "clears a kill that is not set", seq, None, clearance["kill"])
        self.enrolled("V10.clearance", seq, clearance["person"], body["key"])
        signed = canon.signing_bytes("clearance", clearance)
        self.by_person("V10", "V10.clearance", seq, clearance["person"], body, signed)

    def _answered(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        approval = body["approval"]
        refute = self._ledger.refute
        self.deployment("V10.approval", seq, approval)
        signed = canon.signing_bytes("approval", approval)
        self.by_person("V10", "V10.approval", seq, approval["person"], body, signed)
        escalation = self._state.escalations.get(body["escalation"])
        if escalation is None:
            refute("V10.approval", "answers an escalation that was never raised", seq, None, body["escalation"])
            return
        self._bound(seq, body, escalation)
        if approval["ladder"] in escalation.rung and record["at"] >= (until := escalation.until(approval["ladder"])):
            refute("V10.approval", "answered after the deadline", seq, until, record["at"])
        place = self._state.place(escalation, approval["ladder"], approval["person"], record["at"])
        if approval["person"] in escalation.people or place in escalation.places:
            refute("V10.approval", f"{approval['person']} answered before", seq)
        if escalation.state != "pending":
            refute("V10.approval", f"the escalation was already {escalation.state}", seq)
        if self._state.bundle is not None:
            self._eligible(seq, body, escalation, self._state.bundle, place)

    def _behind(self, escalation: Escalation, bundle: Bundle) -> set[str | None]:
        """Owners of who asked, of whom it acts under, and of whom people were asked about the same obligation."""
        raised, state = escalation.body, self._state
        agents = {raised["agent"], *(state.mandates[one].document["agent"] for one in state.chain(raised["mandate"])
                                     if one in state.mandates)}  # fmt: skip
        if escalation.decided is not None and (obligation := escalation.decided["obligation"]) is not None:
            agents |= state.asked.get(obligation, set())
        return {bundle.owners[agent] for agent in agents if agent in bundle.owners}

    def _bound(self, seq: int, body: dict[str, Any], escalation: Escalation) -> None:
        """The approval names exactly what was escalated."""
        approval, raised = body["approval"], escalation.body
        expected = {name: raised[name] for name in ("escalation", "action", "request", "bundle", "mandate", "terms")}
        expected |= {"not_after": raised["not_after"], "ids": raised["ladders"].get(approval["ladder"])}
        expected["rung"] = escalation.rung.get(approval["ladder"])
        if "reference" in raised or "reference" in approval:
            expected["reference"] = raised["reference"]["digest"] if "reference" in raised else None
        for name, value in expected.items():
            if approval.get(name) != value:
                self._ledger.refute("V10.approval", f"signed another {name}", seq, value, approval.get(name))

    def _eligible(
        self, seq: int, body: dict[str, Any], escalation: Escalation, bundle: Bundle, place: str | None
    ) -> None:  # fmt: skip
        """The bundle in force says who may answer: somebody who left answers nothing any more."""
        approval = body["approval"]
        person = approval["person"]
        refute = self._ledger.refute
        if not self._state.roll.holds(bundle, person, body["key"]):
            refute("V10.approval", f"signed with a key that is not enrolled for {person}", seq)
        if place is None:
            refute("V10.approval", f"{person} has no role of the rung that the ladder {approval['ladder']} asks", seq)
        owner = bundle.owners.get(escalation.body["agent"])
        if owner is None:
            refute("V10.approval", "the agent that asked is not in the bundle any more", seq)
        if {person, place} & self._behind(escalation, bundle):
            refute("V10.separation", f"{person} owns an agent behind what was asked, or stands in for who does", seq)
        if bundle.author in (person, place):
            refute("V10.separation", f"{person} wrote the policy, or stands in for who did", seq)
        setter = self._state.register.setters.get(escalation.body["terms"]["payee"] or "")
        if setter is not None and setter in (person, place):
            refute("V10.separation", f"{person} set the account that is paid, or stands in for who did", seq)
        state = answered_state(escalation, approval, bundle)
        if body["state"] != state:
            refute("V10.approval", "the escalation is in another state after this answer", seq, state, body["state"])


def answered_state(escalation: Escalation, approval: dict[str, Any], bundle: Bundle) -> str:
    """The state after an answer: one refusal refuses; approved when every ladder has its quorum."""
    if approval["verdict"] == "refuse":
        return "refused"
    counts = {ladder: len(people) for ladder, people in escalation.answers.items()}
    if approval["person"] not in escalation.people:
        counts[approval["ladder"]] = counts.get(approval["ladder"], 0) + 1
    for name in escalation.body["ladders"]:
        rung = rung_of(bundle, name, escalation)
        if rung is None or counts.get(name, 0) < rung["quorum"]:
            return "pending"
    return "approved"
