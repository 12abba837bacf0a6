"""V10: keys enrolled and removed by record, and who answers for somebody who is away (docs/spec/record.md)."""

from collections.abc import Collection
from typing import Any

from countermark_verify import canon
from countermark_verify.authority import Authority
from countermark_verify.bundle import PERSON_KEYS_MAX, Bundle
from countermark_verify.crypto import parse_any, signed_text
from countermark_verify.errors import Malformed
from countermark_verify.report import Ledger
from countermark_verify.state import State

ENROLMENT_US_MAX = 7 * 86_400_000_000
ABSENCE_US_MAX = 366 * 86_400_000_000
_VOUCH = frozenset(("principal", "operator"))
_GRANT = frozenset(("principal",))


class People:
    """Checks each record before it is folded."""

    def __init__(self, ledger: Ledger, authority: Authority, state: State) -> None:
        self._ledger = ledger
        self._authority = authority
        self._state = state
        self._checks = {
            "policy.activated": self._activated,
            "key.enrolled": self._enrolled,
            "key.removed": self._removed,
            "absence.set": self._away,
        }

    def check(self, position: int, record: dict[str, Any]) -> None:
        check = self._checks.get(record["kind"])
        if check is not None:
            self._ledger.ran("V09" if record["kind"] == "policy.activated" else "V10", 1)
            check(position, record["at"], record["body"])

    def _activated(self, seq: int, at: int, body: dict[str, Any]) -> None:
        """A new bundle gives nobody's key to somebody else."""
        roll, bundle = self._state.roll, self._state.bundles.get(body["activation"]["bundle"])
        if bundle is None:
            return
        for person, known in bundle.people.items():
            for key in known["keys"]:
                if key in roll.enrolled and roll.enrolled[key].person != person:
                    self._ledger.refute("V09.bundle", f"{person} has the key of {roll.enrolled[key].person}", seq)
        for agent, keys in bundle.keys.items():
            if any(key in roll.enrolled or key in roll.removed for key in keys):
                self._ledger.refute("V09.bundle", f"the agent {agent} has a key that is, or was, a person's", seq)

    def _enrolled(self, seq: int, at: int, body: dict[str, Any]) -> None:
        said, bundle, roll = body["enrolment"], self._state.bundle, self._state.roll
        person, key = said["person"], said["key"]
        wrong = self._possession(said, body["proof"])
        if said["deployment"] != self._state.deployment:
            wrong.append("made for another deployment")
        if not at < said["not_after"] <= at + ENROLMENT_US_MAX:
            wrong.append("recorded after its time, or lasts too long")
        if key in roll.removed:
            wrong.append(f"the key was removed at seq {roll.removed[key]}")
        if bundle is not None:
            if person not in bundle.people:
                wrong.append(f"nobody is called {person}")
            if (owner := roll.owner(bundle, key)) is not None:
                wrong.append(f"the key is {owner}'s already")
            if person in bundle.people and roll.count(bundle, person) >= PERSON_KEYS_MAX:
                wrong.append(f"{person} has too many keys")
        for reason in wrong:
            self._ledger.refute("V10.enrolment", reason, seq)
        known = self._signed("V10.enrolment", seq, "enrolment", said, body["signed"])
        count = 1 if bundle is not None and bundle.test else 2
        right = self._by_right("V10.enrolment", seq, (person,), _VOUCH, count, body["signed"])
        # One other is enough where nothing real moves, and says nothing to an auditor: they could be anybody's key.
        if known and right and not wrong and (len(body["signed"]) == 2 or body["signed"][0]["person"] == person):
            self._authority.vouch(key, person, seq, [row["person"] for row in body["signed"]])

    @staticmethod
    def _possession(said: dict[str, Any], proof: Any) -> list[str]:
        """A passkey signed its own enrolment, and no other key did."""
        try:
            parse_any(said["key"])
        except Malformed as error:
            return [f"the key {error}"]
        if said["key"].startswith("webauthn:") != (proof is not None):
            return ["a passkey proves that somebody holds it, and no other key does"]
        message = canon.signing_bytes("enrolment-proof", said)
        if proof is not None and not signed_text(said["key"], proof, message):
            return ["the passkey did not sign this enrolment"]
        return []

    def _removed(self, seq: int, at: int, body: dict[str, Any]) -> None:
        said, bundle, roll = body["removal"], self._state.bundle, self._state.roll
        refute, authority = self._ledger.refute, self._authority
        authority.deployment("V10.enrolment", seq, said)
        authority.enrolled("V10.enrolment", seq, said["by"], body["key"])
        signed = canon.signing_bytes("removal", said)
        authority.by_person("V10", "V10.enrolment", seq, said["by"], body, signed)
        if bundle is None:
            return
        if not roll.holds(bundle, said["person"], said["key"]):
            refute("V10.enrolment", f"{said['person']} does not have this key", seq, None, said["key"])
        if said["by"] != said["person"] and _VOUCH.isdisjoint(self._roles(bundle, said["by"])):
            refute("V10.enrolment", f"{said['by']} may not remove somebody else's key", seq)
        if not any(roll.left(bundle, one, said["key"]) for one in bundle.principals):
            refute("V10.enrolment", "the last key of the last principal", seq)

    def _away(self, seq: int, at: int, body: dict[str, Any]) -> None:
        said, bundle = body["absence"], self._state.bundle
        refute = self._ledger.refute
        self._authority.deployment("V10.absence", seq, said)
        if not 0 < said["until"] - said["from"] <= ABSENCE_US_MAX:
            refute("V10.absence", "lasts for no time, or too long", seq)
        if said["person"] == said["stands_in"]:
            refute("V10.absence", "the person stands in for themselves", seq)
        for person in (said["person"], said["stands_in"]):
            if bundle is not None and person not in bundle.people:
                refute("V10.absence", f"nobody is called {person}", seq)
        self._signed("V10.absence", seq, "absence", said, body["signed"])
        self._by_right("V10.absence", seq, (said["person"], said["stands_in"]), _GRANT, 2, body["signed"])

    def _signed(self, code: str, seq: int, domain: str, said: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
        """Every signature is by a key of the person it names; True when there are any, and the auditor knows all."""
        signed = canon.signing_bytes(domain, said)
        for row in rows:
            self._authority.enrolled(code, seq, row["person"], row["key"])
        known = [self._authority.by_person("V10", code, seq, row["person"], row, signed) for row in rows]
        return bool(known) and all(known)

    def _by_right(
        self, code: str, seq: int, about: tuple[str, ...], roles: Collection[str], count: int,
        rows: list[dict[str, Any]],
    ) -> bool:  # fmt: skip
        """By the first of `about`, or by `count` others with one of the roles, all different."""
        people, bundle = [row["person"] for row in rows], self._state.bundle
        if people == [about[0]] or bundle is None:
            return True
        few = len(people) < count or len(set(people)) < len(people)
        if few or any(one in about or set(roles).isdisjoint(self._roles(bundle, one)) for one in people):
            self._ledger.refute(code, f"not signed by {about[0]}, nor by {count} others who may", seq, count, people)
            return False
        return True

    @staticmethod
    def _roles(bundle: Bundle, person: str) -> list[str]:
        known = bundle.people.get(person)
        return known["roles"] if known is not None else []
