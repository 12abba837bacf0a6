"""V10, V11, V12: what people said afterwards (resolutions, reviews, reopenings, imports), and who read the log."""

import re
from collections.abc import Container
from datetime import date
from typing import Any

from countermark_verify import canon
from countermark_verify.authority import Authority
from countermark_verify.identity import normal
from countermark_verify.report import Ledger
from countermark_verify.state import State

_PSEUDONYM = re.compile(r"p:[0-9a-f]{32}")
# What is left of a business key's text in its normal form.
_TEXT = re.compile(r"[!-~]*[a-z0-9][!-~]*")
_BY_HAND = {"attempts": 0, "http_status": 0, "request_id": "", "response": "", "output": {}}


class Hindsight:
    """Checks each record against the state that earlier ones left."""

    def __init__(self, ledger: Ledger, authority: Authority, state: State, *, whole: bool = True) -> None:
        self._ledger = ledger
        self._whole = whole
        self._authority = authority
        self._state = state
        # What two people agreed on, and where: the outcome that follows says the same.
        self._agreed: tuple[int, dict[str, Any]] | None = None
        self._checks = {
            "action.resolved": self._resolved,
            "action.settled": self._settled,
            "review.cleared": self._reviewed,
            "obligation.imported": self._imported,
            "obligation.reopened": self._reopened,
            "log.read": self._read,
        }

    def check(self, position: int, record: dict[str, Any]) -> None:
        check = self._checks.get(record["kind"])
        if check is not None:
            check(position, record, record["body"])

    def _four_eyes(self, code: str, seq: int, domain: str, document: dict[str, Any], body: dict[str, Any]) -> None:
        """Two different people signed the document, and one of them is independent of author and agent's owner."""
        authority, bundle = self._authority, self._state.bundle
        self._ledger.ran("V10", 1)
        authority.deployment(code, seq, document)
        signed = canon.signing_bytes(domain, document)
        people = [row["person"] for row in body["signed"]]
        for row in body["signed"]:
            authority.enrolled(code, seq, row["person"], row["key"])
            authority.by_person("V10", code, seq, row["person"], row, signed)
        if len(set(people)) != len(people):
            self._ledger.refute("V10.separation", f"{people[0]} signed twice", seq)
        if bundle is None:
            return
        owner = bundle.owners.get(body.get("agent", ""))
        if not any(bundle.independent(person, owner, bundle.author) for person in people):
            self._ledger.refute("V10.separation", "nobody independent signed", seq, None, people)

    def _resolved(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute, said = self._ledger.refute, body["resolution"]
        self._ledger.ran("V11", 1)
        self._agreed = (seq, said)
        self._four_eyes("V10.resolution", seq, "resolution", said, body)
        if said["action"] != body["id"]:
            refute("V10.resolution", "signed for another action", seq, body["id"], said["action"])
        intent = self._state.intents.get(body["id"])
        if intent is None:
            refute("V11.outcome", "resolves what has no intent, or a final outcome", seq, None, body["id"])
            return
        if body["intent"] != intent.seq:
            refute("V11.outcome", "names another record as its intent", seq, intent.seq, body["intent"])
        if said["intent_digest"] != intent.digest:
            refute("V10.resolution", "signed for another intent", seq, intent.digest, said["intent_digest"])
        for name, expected in (
            ("agent", intent.fields["agent"]),
            ("run", intent.fields["run"]),
            ("terms", intent.terms),
        ):
            if body[name] != expected:
                refute("V11.outcome", f"another {name} than the intent's", seq, expected, body[name])
        moves = said["outcome"] == "confirmed" and intent.terms["amount"] is not None
        if moves != (said["amount"] is not None):
            refute("V11.outcome", "an amount exactly when money was moved", seq, moves, said["amount"])
        bundle = self._state.bundles.get(intent.bundle)
        tool = bundle.tools.get(intent.fields["tool"]) if bundle else None
        if tool is not None and record["at"] < (until := intent.at + tool["dispatch_within_s"] * 1_000_000):
            refute("V11.outcome", "resolved while it could still start", seq, until, record["at"])

    def _settled(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute = self._ledger.refute
        agreed = self._agreed[1] if self._agreed is not None and self._agreed[0] == seq - 1 else None
        if (body["via"] == "people") != (agreed is not None):
            refute("V11.outcome", "told by people exactly after an action.resolved", seq, None, body["via"])
        if body["via"] != "people" or agreed is None:
            return
        moved = body["settled"]["amount"] if body["settled"] is not None else None
        found = [body["outcome"], body["ref"], moved]
        if found != (expected := [agreed[name] for name in ("outcome", "ref", "amount")]):
            refute("V11.outcome", "not what two people signed", seq, expected, found)
        if body["code"] not in ("resolved", "booked_differently"):
            refute("V11.outcome", "another code than people's", seq, "resolved", body["code"])
        for name, nothing in _BY_HAND.items():
            if body[name] != nothing:
                refute("V11.outcome", f"{name} of an answer that nobody had", seq, nothing, body[name])

    def _reviewed(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute, said, authority = self._ledger.refute, body["review"], self._authority
        for step in ("V10", "V11"):
            self._ledger.ran(step, 1)
        authority.deployment("V10.review", seq, said)
        authority.enrolled("V10.review", seq, said["person"], body["key"])
        signed = canon.signing_bytes("review", said)
        authority.by_person("V10", "V10.review", seq, said["person"], body, signed)
        if said["action"] != body["id"]:
            refute("V10.review", "signed for another action", seq, body["id"], said["action"])
        flagged = self._state.flagged.get(body["id"])
        if flagged is None and not self._whole and body["id"] not in self._state.actions:
            return  # an extract leaves out other people's actions
        if flagged is None:
            refute("V11.review", "clears what is not flagged, or was cleared before", seq, None, body["id"])
            return
        if (body["decided"], said["decided_digest"]) != (flagged.seq, flagged.digest):
            refute("V10.review", "signed for another decision", seq, flagged.digest, said["decided_digest"])
        bundle = self._state.bundle
        if bundle is not None and said["person"] == bundle.owners.get(flagged.agent):
            refute("V10.separation", f"{said['person']} owns the agent", seq)

    def _reopened(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute, said = self._ledger.refute, body["reopening"]
        self._ledger.ran("V11", 1)
        self._four_eyes("V10.reopening", seq, "reopening", said, body)
        if said["action"] != body["id"]:
            refute("V10.reopening", "signed for another action", seq, body["id"], said["action"])
        refusal = self._state.refusals.get(body["refused"])
        if refusal is None and not self._whole and body["id"] not in self._state.actions:
            return  # an extract leaves out other people's actions
        if refusal is None or self._state.refused.get(refusal[0]) != body["refused"]:
            refute("V11.obligation", "reopens what no refusal holds", seq, None, f"seq:{body['refused']}")
            return
        _, digest, answer = refusal
        if said["refusal_digest"] != digest:
            refute("V10.reopening", "signed for another refusal", seq, digest, said["refusal_digest"])
        for name in ("id", "agent", "run", "terms"):
            if body[name] != answer[name]:
                refute("V11.obligation", f"another {name} than the refusal's", seq, answer[name], body[name])

    def _imported(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute, said, state = self._ledger.refute, body["import"], self._state
        for step in ("V11", "V12"):
            self._ledger.ran(step, 1)
        self._four_eyes("V10.import", seq, "import", said, body)
        for taken in (state.held, state.refused):
            if body["obligation"] in taken:
                refute("V11.obligation", "the business key was taken", seq, None, f"seq:{taken[body['obligation']]}")
        if not _is_day(said["date"]):
            refute("V10.import", "not a day of the calendar", seq, None, said["date"])
        if state.bundle is not None:
            check_pairs(self._ledger, seq, state, said["tool"], said | {"obligation": body["obligation"]})

    def _read(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._ledger.ran("V11", 1)
        if not body["from"] < body["to"] <= seq:
            found = [body["from"], body["to"]]
            self._ledger.refute("V11.read", "these records were not there to be read", seq, [0, seq], found)
        if self._state.reads_as_nobody(body["reader"]):
            self._ledger.refute("V11.read", "read by somebody whom the policy does not know", seq, None, body["reader"])


def check_pairs(ledger: Ledger, seq: int, state: State, name: str, said: dict[str, Any]) -> None:
    """The `pairs` that are said to be a tool's business key stand as in a decision, and make the `obligation`."""
    bundle = state.bundle
    tool = bundle.tools.get(name) if bundle is not None else None
    names = [part for part, _ in said["pairs"]]
    if bundle is None or tool is None or names != sorted(tool["once_per"]) or not names:
        ledger.refute("V12.obligation", f"not the pairs of a business key of {name!a}", seq, None, names)
        return
    for part, value in said["pairs"]:
        if not _stands(part, value, tool, state.register.payees):
            ledger.refute("V12.obligation", f"{part} is not in its normal form", seq, None, value)
    expected = canon.digest("obligation", canon.render([tool["once_scope"], said["pairs"]]))
    if said["obligation"] != expected:
        ledger.refute("V12.obligation", "another business key", seq, expected, said["obligation"])


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text) is not None
    except ValueError:
        return False


def _stands(name: str, value: str, tool: dict[str, Any], payees: Container[str]) -> bool:
    """Could the value stand in the tool's business key under this name? (docs/spec/decision.md)"""
    if name == "payee":
        return value in payees or _PSEUDONYM.fullmatch(value) is not None
    item = next((item for item in tool["args"] if item["alias"] == name), None)
    if item is None:
        return False
    if value == "":
        return not item["required"]
    if item["sensitive"]:
        return _PSEUDONYM.fullmatch(value) is not None
    return _TEXT.fullmatch(value) is not None and normal(value) == value
