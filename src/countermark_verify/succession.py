"""Successor lanes: what a restore declares, what the providers moved since, and who opened it (docs/spec/record.md)."""

from typing import Any

from countermark_verify import canon
from countermark_verify.authority import Authority
from countermark_verify.canon import ZERO
from countermark_verify.crypto import parse_key
from countermark_verify.errors import Malformed
from countermark_verify.extract import verified
from countermark_verify.hindsight import check_pairs
from countermark_verify.notes import ED25519, Checkpoint, log_signed, parse_verifier_key, verifier_key
from countermark_verify.report import Ledger
from countermark_verify.state import State
from countermark_verify.tree import Tree
from countermark_verify.trust import Trust, TrustedHead


def rotated_key(said: dict[str, Any]) -> str:
    """The verifier key that a rotation hands over to; nothing for one that is no key."""
    try:
        return verifier_key(f"countermark/{said['deployment']}/{said['lane']}", parse_key(said["new"])).text
    except Malformed:
        return ""


class Succession:
    """Checks each record before it is folded; the lane changes only here."""

    def __init__(
        self, ledger: Ledger, authority: Authority, state: State, head: Checkpoint | None, trust: Trust | None,
        tree: Tree | None,
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._authority = authority
        self._state = state
        self._tree = tree  # of all records so far, the present one included; of an extract there is none
        self._head = head
        self._trust = trust
        self._lane: str | None = None
        self._log_key: str | None = None
        self._rotated = False  # in this lane
        # The list that must follow: how many movements, their digest, the place of its lane.succeeded.
        self._promised: tuple[int, str, int] | None = None
        self._digest = ZERO
        self._count = 0
        self._asked: frozenset[str] = frozenset()  # the connectors that the list is from
        self._at = 0  # of the record before
        # Lane -> its restored size, and size and root of the longest head that was declared for it (0: none).
        self._ended: dict[str, tuple[int, int, str]] = {}

    def check(self, position: int, record: dict[str, Any]) -> None:
        kind, body = record["kind"], record["body"]
        self._check(position, kind, record, body)
        self._at = record["at"]

    def _check(self, position: int, kind: str, record: dict[str, Any], body: dict[str, Any]) -> None:
        if kind == "lane.imported":
            self._imported(position, body)
            return
        self._list_ended()
        if kind == "lane.succeeded":
            self._succeeded(position, record, body)
        elif kind == "lane.accepted":
            self._accepted(position, body)
        elif kind == "key.rotated":
            self._log_key = rotated_key(body["rotation"]) or self._log_key
            self._rotated = True
        elif kind == "gate.started":
            if self._log_key is not None and body["log_key"] != self._log_key:
                self._ledger.refute("V03.mismatch", "another log key than the lane's", position, self._log_key,
                                    body["log_key"])  # fmt: skip
            self._log_key = body["log_key"]
        elif kind == "kill.cleared":
            waiting = self._state.succession
            if waiting is not None and body["clearance"]["kill"] == waiting.kill:
                self._ledger.refute("V10.succession", "a restored lane is opened by two people, not by a clearance",
                                    position)  # fmt: skip
        self._lane = record["lane"] if self._lane is None else self._lane

    def finish(self) -> None:
        """The last lane is the head's; every retained head of an earlier one was reached or declared lost."""
        self._list_ended()
        head = self._head
        if head is not None and self._lane is not None and self._state.deployment is not None:
            origin = f"countermark/{self._state.deployment}/{self._lane}"
            if origin != head.origin:
                self._ledger.refute("V03.origin", "the records end in another lane", None, head.origin, origin)
        for lane, (size, known, _) in self._ended.items():
            if known == 0 or known > size:
                what = "an unknown number of" if known == 0 else str(known - size)
                self._ledger.lack("V15.gap", f"{what} records of lane {lane} were lost before a restore", size)
        for item in self._trust.foreign if self._trust is not None else ():
            self._foreign(item)
        if head is not None and self._rotated and self._log_key is not None:
            message = "the head is not signed by the key that the log was handed over to"
            try:
                key = parse_verifier_key(self._log_key, ED25519)
                signed = head.origin != key.name or log_signed(head, key)
            except Malformed:  # a later start may name anything
                signed = False
            if not signed:
                self._ledger.refute("V03.signature", message, None, self._log_key)

    def _foreign(self, head: TrustedHead) -> None:
        """A retained head of a predecessor lane."""
        lane, size = head.origin.rpartition("/")[2], head.size
        self._ledger.ran("V07", 1)
        if lane not in self._ended:
            self._ledger.lack("V07.no_trust", f"a trusted head is of lane {lane}, which this log does not follow")
            return
        restored, known, root = self._ended[lane]
        if size > restored:
            if size > known:
                message = f"the auditor has a head of lane {lane} of size {size}, which the restore did not declare"
                self._ledger.refute("V07.undeclared", message, restored, size, known)
            elif size == known and head.root.hex() != root:
                message = f"the restore declares another head of lane {lane} of size {size} than the auditor has"
                self._ledger.refute("V07.undeclared", message, restored, head.root.hex(), root)
        elif self._tree is None:
            if not verified(self._head, self._trust):
                message = f"a head of lane {lane} cannot be compared with chosen records"
                self._ledger.lack("V07.extract", message, None, size)
        elif self._tree.roots.get(size) != head.root:
            self._ledger.refute("V07.rewritten", f"not the history of the head of lane {lane} of size {size}")

    @staticmethod
    def _lane_number(text: str) -> int:
        number = text.rpartition("/")[2][1:]
        return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else -1

    def precedes(self, lane: str) -> bool:
        """May the records of this lane stand before those of the head's lane?"""
        number = self._lane_number(lane)
        return self._head is not None and 0 <= number < self._lane_number(self._head.origin)

    def _succeeded(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        before = body["predecessor"]
        origin = f"countermark/{self._state.deployment}/{record['lane']}"
        root = self._tree.root_at(seq).hex() if self._tree is not None else before["root"]
        expected = {"lane": self._lane, "size": seq, "root": root, "log_key": self._log_key}
        for name, value in expected.items():
            if before[name] != value:
                self._differs(seq, f"another {name} than that of the records before", value, before[name])
        for given in (body["lane"], record["lane"]):
            if self._lane is None or self._lane_number(given) != self._lane_number(self._lane) + 1:
                self._differs(seq, "not the lane after the one before", self._lane, given)
        if body["log_key"].partition("+")[0] != origin:
            self._differs(seq, "the successor's key is not named like its log", origin, body["log_key"])
        if self._head is not None and origin == self._head.origin and self._trust and self._trust.log_keys:
            keys = sorted(key.text for key in self._trust.log_keys)
            if body["log_key"] not in keys:
                self._ledger.refute("V03.mismatch", "another log key than the trusted ones", seq, keys, body["log_key"])
        known = body["known"]
        if known is not None and known["size"] < seq:
            self._differs(seq, "a head shorter than what was restored says nothing of its end", seq, known["size"])
            known = None
        elif known is not None and known["size"] == seq and known["root"] != root:
            self._differs(seq, "the known head of this size has another root", root, known["root"])
        if self._lane is not None:
            self._ended[self._lane] = (seq, 0, "") if known is None else (seq, known["size"], known["root"])
        self._lane, self._log_key, self._rotated = record["lane"], body["log_key"], False
        self._promised = (body["activity"]["found"], body["activity"]["digest"], seq)
        self._digest, self._count = ZERO, 0
        self._asking(seq, body["activity"])

    def _asking(self, seq: int, activity: dict[str, Any]) -> None:
        """Every provider of the policy in force is named, and was asked since before all that was still under way."""
        asked, unasked = activity["asked"], activity["unasked"]
        self._asked = frozenset(asked)
        bundle = self._state.bundle
        tools = bundle.tools.values() if bundle is not None else ()
        names = sorted({tool["connector"] for tool in tools if tool["class"] == "money"})
        if [asked, unasked] != [sorted(set(asked)), sorted(set(unasked))] or sorted([*asked, *unasked]) != names:
            self._ledger.refute("V11.succession", "not the connectors of the policy's money tools, each once", seq,
                                names, [asked, unasked])  # fmt: skip
        since = min([self._at, *(intent.at for intent in self._state.intents.values())])
        if activity["since"] > since and self._tree is not None:
            self._ledger.refute("V11.succession", "asked since a time after what was still under way", seq, since,
                                activity["since"])  # fmt: skip

    def _differs(self, seq: int, message: str, expected: Any, actual: Any) -> None:
        self._ledger.refute("V06.lane", message, seq, expected, actual)

    def _list_ended(self) -> None:
        if self._promised is None:
            return
        found, digest, seq = self._promised
        self._promised = None
        if (found, digest) != (self._count, self._digest):
            self._ledger.refute("V11.succession", "not the movements that the restore counted", seq,
                                [found, digest], [self._count, self._digest])  # fmt: skip

    def _imported(self, seq: int, body: dict[str, Any]) -> None:
        self._ledger.ran("V11", 1)
        if self._promised is None:
            self._ledger.refute("V11.succession", "a movement outside the list of a restore", seq)
        self._count += 1
        self._digest = canon.digest("activity", canon.render([self._digest, body]))
        bundle = self._state.bundle
        tool = bundle.tools.get(body["tool"]) if bundle else None
        if tool is None or tool["class"] != "money" or tool["connector"] not in self._asked:
            self._ledger.refute("V11.succession", "a movement of no tool whose provider was asked", seq,
                                sorted(self._asked), body["tool"])  # fmt: skip
        if body["pairs"] is None:
            if body["obligation"] is not None:
                self._ledger.refute("V12.obligation", "a business key of no pairs", seq, None, body["obligation"])
            return
        check_pairs(self._ledger, seq, self._state, body["tool"], body)
        payee = dict(body["pairs"]).get("payee", body["terms"]["payee"])
        if payee != body["terms"]["payee"]:
            self._ledger.refute("V12.obligation", "of another payee than the terms", seq, body["terms"]["payee"], payee)

    def _accepted(self, seq: int, body: dict[str, Any]) -> None:
        order, waiting = body["acceptance"], self._state.succession
        self._ledger.ran("V10", 1)
        refute = self._ledger.refute
        self._authority.deployment("V10.succession", seq, order)
        self._authority.enrolled("V10.succession", seq, order["person"], body["key"])
        signed = canon.signing_bytes("acceptance", order)
        self._authority.by_person("V10", "V10.succession", seq, order["person"], body, signed)
        if waiting is None:
            refute("V10.succession", "no restored lane waits to be accepted", seq)
            return
        expected = {
            "lane": waiting.lane, "succession": waiting.digest, "imported": waiting.imported,
            "bundle": self._state.activated,
        }  # fmt: skip
        for name, value in expected.items():
            if order[name] != value:
                refute("V10.succession", f"accepts another {name}", seq, value, order[name])
        if order["person"] in waiting.people:
            refute("V10.succession", f"{order['person']} accepted before", seq)
