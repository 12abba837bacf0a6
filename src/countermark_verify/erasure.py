"""V19: what was erased, by whom, and whether it was allowed; holds; what was disclosed (docs/spec/verify.md).

What a subject has, the rules under which its records were decided, and the holds that stand are folded here, so that
an erasure is judged by the records before it and by nothing that it says of itself.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark_verify import canon, sealed
from countermark_verify.authority import Authority
from countermark_verify.bundle import Bundle
from countermark_verify.disclosures import Disclosures
from countermark_verify.identity import REASON_ALIAS, Identity
from countermark_verify.order import Order
from countermark_verify.report import Ledger
from countermark_verify.state import State

_NOTHING = "sha256:" + "0" * 64
_SECOND_US = 1_000_000
_AGENT = "agent:"
_NO_TOOL = ""  # under which values of sealed runs are kept: the rule of tools without one


def subject_of(agent: str, terms: Mapping[str, Any]) -> str:
    """Whose the sealed values of a decision are."""
    return str(terms["payee"]) if terms["payee"] is not None else _AGENT + agent


@dataclass(slots=True)
class Holding:
    """What a subject has that was not erased; `keep`: tool -> the longest rule in seconds, None for no rule.

    `open`: sealed runs of it that have not ended.
    """

    records: int = 0
    values: int = 0
    digest: str = _NOTHING
    newest: int = 0
    keep: dict[str, int | None] = field(default_factory=dict)
    agents: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    aliases: Counter[str] = field(default_factory=Counter)
    shown: bool = False

    def rule(self, tool: str, bundle: Bundle | None) -> None:
        found = bundle.keep_s(tool) if bundle is not None else None
        known = self.keep.get(tool)
        self.keep[tool] = max((rule for rule in (found, known) if rule is not None), default=None)

    def longest(self, bundle: Bundle | None) -> int | None:
        """The rule that counts, the bundle in force included; None where a tool is under none."""
        for tool in list(self.keep):
            self.rule(tool, bundle)
        rules = [rule for rule in self.keep.values() if rule is not None]
        return max(rules) if rules and len(rules) == len(self.keep) else None


class Erasures:
    """Checks each record against what earlier ones left, then folds it."""

    def __init__(
        self,
        ledger: Ledger,
        authority: Authority,
        state: State,
        identity: Identity,
        disclosures: Disclosures,
        order: Order,
        verified: bool | None = None,
    ) -> None:
        """`verified`: of an extract, whether the auditor verified the whole log; None where nothing is left out."""
        self._ledger = ledger
        self._verified = verified
        self._partly = 0  # erasures of which an extract does not have all that they took
        self._authority = authority
        self._state = state
        self._identity = identity
        self._disclosures = disclosures
        self._has: dict[str, Holding] = {}
        self._generations: Counter[str] = Counter()
        self._holds: dict[str, tuple[str, str]] = {}
        self._hold_ids: set[str] = set()
        # Payee -> the pseudonyms of accounts that were its own.
        self._tied: dict[str, set[str]] = {}
        self._left: Counter[str] = Counter()
        self._order = order
        self.values = 0
        self.named: list[dict[str, Any]] = []
        self._checks = {
            "action.decided": self._decided,
            "payee.changed": self._changed,
            "hold.set": self._held,
            "hold.cleared": self._released,
            "data.erased": self._erased,
            "data.disclosed": self._disclosed,
            **dict.fromkeys(sealed.KINDS, self._of_run),
        }

    def check(self, position: int, record: dict[str, Any]) -> None:
        check = self._checks.get(record["kind"])
        if check is not None:
            check(position, record, record["body"])

    def finish(self) -> None:
        if self._partly and not self._verified:
            message = f"what {self._partly} erasures took, and when it might go, rests on records that are not here"
            self._ledger.lack("V19.extract", message)

    def _refute(self, code: str, message: str, seq: int, expected: Any = None, actual: Any = None) -> None:
        self._ledger.refute(code, message, seq, expected, actual)

    def _decided(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        aliases = [alias for alias, value in body["args"].items() if type(value) is dict]
        aliases += [REASON_ALIAS] if body["claimed"]["reason"] is not None else []
        if not aliases:
            return
        has = self._add(seq, record, subject_of(body["agent"], body["terms"]), aliases)
        has.rule(body["tool"], self._state.bundles.get(body["bundle"]))

    def _of_run(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        if (subject := sealed.subject_of(record)) is None:
            return
        has = self._add(seq, record, subject, [sealed.hidden(body)[0]])
        if record["kind"] == "run.started":
            has.rule(_NO_TOOL, self._state.bundles.get(body["workflow"]["bundle"]))
            has.open.add(body["run"])
        elif record["kind"] == "run.ended":
            has.open.discard(body["run"])

    def _add(self, seq: int, record: dict[str, Any], subject: str, aliases: list[str]) -> Holding:
        """A record of the subject that has values under these aliases."""
        body, has = record["body"], self._has.setdefault(subject, Holding())
        has.records += 1
        has.values += len(aliases)
        has.digest = canon.digest("subject", canon.render([has.digest, self._order.newest]))
        has.newest = record["at"]
        has.agents.add(body["agent"])
        has.runs.add(body["run"])
        has.aliases.update(aliases)
        has.shown = has.shown or any((seq, alias) in self._disclosures.fields for alias in aliases)
        self._left.update(aliases)
        return has

    def _changed(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        names = {name for name in (body["was"], body["now"]) if name is not None}
        self._tied.setdefault(body["details"]["payee"], set()).update(names)

    def _held(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._ledger.ran("V19", 1)
        said, authority, bundle = body["order"], self._authority, self._state.bundle
        authority.deployment("V19.signature", seq, said)
        authority.enrolled("V19.signature", seq, said["person"], body["key"])
        signed = canon.signing_bytes("hold", said)
        authority.by_person("V19", "V19.signature", seq, said["person"], body, signed)
        known = bundle.people.get(said["person"]) if bundle is not None else None
        if known is not None and not known["roles"]:
            self._refute("V19.signature", f"{said['person']} has no role", seq)
        if said["hold"] in self._hold_ids:
            self._refute("V19.hold", "a hold of this id was set before", seq, None, said["hold"])
        self._hold_ids.add(said["hold"])
        self._holds[said["hold"]] = (said["scope"]["kind"], said["scope"]["value"])

    def _released(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._ledger.ran("V19", 1)
        self._two(seq, "release", body["release"], body["signed"])
        if body["hold"] != body["release"]["hold"]:
            self._refute("V19.hold", "signed for another hold", seq, body["hold"], body["release"]["hold"])
        if self._holds.pop(body["hold"], None) is None:
            self._refute("V19.hold", "ends a hold that does not stand", seq, None, body["hold"])

    def _two(self, seq: int, domain: str, said: dict[str, Any], rows: list[dict[str, Any]], agent: str = "") -> None:
        """Two different people signed it, one of them independent of the policy's author and the agent's owner."""
        authority, bundle = self._authority, self._state.bundle
        authority.deployment("V19.signature", seq, said)
        signed = canon.signing_bytes(domain, said)
        people = [row["person"] for row in rows]
        for row in rows:
            authority.enrolled("V19.signature", seq, row["person"], row["key"])
            authority.by_person("V19", "V19.signature", seq, row["person"], row, signed)
        if len(set(people)) != len(people):
            self._refute("V19.separation", f"{people[0]} signed twice", seq)
        if bundle is None:
            return
        if not any(bundle.independent(person, bundle.owners.get(agent), bundle.author) for person in people):
            self._refute("V19.separation", "nobody independent signed", seq, None, people)

    def _erased(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._ledger.ran("V19", 1)
        said = body["erasure"]
        subject = said["subject"]
        agent = subject[len(_AGENT) :] if subject.startswith(_AGENT) else ""
        self._two(seq, "erasure", said, body["signed"], agent)
        has = self._has.pop(subject, Holding())
        partly = self._verified is not None and said["records"] > has.records
        self._partly += partly
        for name, expected, less in (
            ("generation", self._generations[subject], False),
            ("records", has.records, partly),
            ("values", has.values, partly and said["values"] > has.values),
            ("digest", has.digest, partly),
        ):
            if said[name] != expected and not less:
                self._refute("V19.count", f"another {name} than {subject} has", seq, expected, said[name])
        if holds := self._holding(subject, has):
            self._refute("V19.hold", "erased under a legal hold", seq, None, holds)
        if has.open or self._under_way(subject):
            self._refute("V19.open", "erased while something of the subject was under way", seq)
        self._duty(seq, record["at"], body["retention"], has, partly)
        if has.shown:
            self._refute("V19.disclosure", f"the pack discloses values of {subject} that were erased", seq)
        self._generations[subject] += 1
        self._left.subtract(has.aliases)
        self._identity.erased(subject)
        self.values += has.values
        people = [row["person"] for row in body["signed"]]
        values = said["values"] if partly else has.values
        self.named.append({"subject": subject, "values": values, "seq": seq, "by": people})

    def _duty(self, seq: int, at: int, stated: dict[str, int], has: Holding, partly: bool) -> None:
        """The longest rule of any bundle under which a record was decided, from the newest record on."""
        if partly and at < stated["until"]:
            self._refute("V19.retention", "erased while it had to be kept", seq, stated["until"], at)
        if partly and not has.records:
            return
        keep_s = has.longest(self._state.bundle)
        if keep_s is None:
            self._refute("V19.retention", "erased without a retention rule", seq, None, stated)
            return
        until = has.newest + keep_s * _SECOND_US
        # Records that are not here may have had a longer rule, or be newer.
        more = partly and stated["keep_s"] >= keep_s and stated["until"] >= until
        if stated != (expected := {"keep_s": keep_s, "until": until}) and not more:
            self._refute("V19.retention", "another duty than the policies say", seq, expected, stated)
        if at < until:
            self._refute("V19.retention", "erased while it had to be kept", seq, until, at)

    def _holding(self, subject: str, has: Holding) -> list[str]:
        return sorted(name for name, scope in self._holds.items() if self._covers(*scope, subject, has))

    def _covers(self, kind: str, value: str, subject: str, has: Holding) -> bool:
        if kind == "payee":
            return subject == value or subject in self._tied.get(value, ())
        if kind == "agent":
            return value in has.agents or subject == _AGENT + value
        return kind == "all" or (kind == "subject" and subject == value) or (kind == "run" and value in has.runs)

    def _under_way(self, subject: str) -> bool:
        state = self._state
        if any(subject_of(one.fields["agent"], one.terms) == subject for one in state.intents.values()):
            return True
        return any(
            one.state == "pending" and subject_of(one.body["agent"], one.body["terms"]) == subject
            for one in state.escalations.values()
        )

    def _disclosed(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        """Who was shown what stands here before it was shown; that it was all of it cannot be told."""
        self._ledger.ran("V19", 1)
        if self._state.reads_as_nobody(body["reader"]):
            self._refute("V19.disclosure", "by somebody whom the policy does not know", seq, None, body["reader"])
        if not body["fields"] or body["fields"] != sorted(set(body["fields"])):
            self._refute("V19.disclosure", "the fields are not sorted, each once", seq, None, body["fields"])
        if body["size"] > seq:
            self._refute("V19.disclosure", "these records were not there to be disclosed", seq, seq, body["size"])
        there = sum(self._left[alias] for alias in body["fields"])
        if self._verified is None and body["count"] > there:
            self._refute("V19.disclosure", "more values than there were", seq, there, body["count"])
