"""The witness policy of a bundle: C2SP tlog-policy, read strictly (docs/spec/policy.md)."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from countermark_verify import notes
from countermark_verify.cosigned import CosignerKey, parse_cosigner
from countermark_verify.errors import Malformed
from countermark_verify.shape import integer, record, text

POLICY_CHARS_MAX = 262_144
PARTS_MAX = 64  # logs, witnesses, groups: of each
STALE_S_MIN, STALE_S_MAX = 5, 86_400
BEFORE = "before"
CLASSES = ("money", "change")  # of the tools that wait for witnesses

WITNESS = record({"policy": text(chars_max=POLICY_CHARS_MAX), "stale_after_s": integer(STALE_S_MIN, STALE_S_MAX)})

_CONTROL = re.compile("[^\t\n\x20-\x7e\x80-\U0010ffff]")
_NAME_CHARS_MAX = 200
_URL_CHARS_MAX = 2_000
_NUMBER = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
_NOBODY = "none"


@dataclass(frozen=True)
class WitnessRule:
    """Whose cosignatures make a quorum, and how old its last answer may be. Groups are in the order of the text."""

    stale_after_s: int
    witnesses: dict[str, CosignerKey]
    groups: tuple[tuple[str, int, tuple[str, ...]], ...]
    quorum: str

    def enough(self, cosigned: Collection[str], deployment: str | None) -> bool:
        """Do these witnesses make the quorum, without those that the deployment runs itself?"""
        own = (deployment or "").casefold()
        met = {name for name in self.witnesses if name in cosigned and operator(name).casefold() != own}
        for name, needed, members in self.groups:
            if sum(member in met for member in members) >= needed:
                met.add(name)
        return self.quorum in met


def operator(name: str) -> str:
    """Who runs a witness of this name."""
    return name.split("/", 1)[0]


def read_rule(member: dict[str, Any]) -> WitnessRule:
    """The bundle's member `witness`, whose shape is right already. Raises `Malformed`."""
    source = member["policy"]
    if not source.endswith("\n") or _CONTROL.search(source):
        raise Malformed("has a witness policy with a control character, or without a last newline")
    reader = _Reader()
    for number, line in enumerate(source.split("\n"), 1):
        words = re.split("[ \t]+", line.strip(" \t"))
        if words == [""] or words[0].startswith("#"):
            continue
        try:
            reader.take(words)
        except Malformed as error:
            raise Malformed(f"has a witness policy whose line {number} {error}") from error
    if reader.quorum in ("", _NOBODY):
        raise Malformed("has a witness policy that asks nobody")
    return WitnessRule(member["stale_after_s"], reader.witnesses, tuple(reader.groups), reader.quorum)


class _Reader:
    def __init__(self) -> None:
        self.witnesses: dict[str, CosignerKey] = {}
        self.groups: list[tuple[str, int, tuple[str, ...]]] = []
        self.quorum = ""
        self._logs: set[bytes] = set()
        self._keys: set[bytes] = set()
        self._grouped: set[str] = set()

    def take(self, words: list[str]) -> None:
        kind, rest = words[0], words[1:]
        if kind == "log" and 1 <= len(rest) <= 2:
            self._log(rest)
        elif kind == "witness" and 2 <= len(rest) <= 3:
            self._witness(*rest)
        elif kind == "group" and len(rest) >= 3:
            self._group(rest[0], rest[1], rest[2:])
        elif kind == "quorum" and len(rest) == 1:
            if self.quorum or (rest[0] != _NOBODY and not self._defined(rest[0])):
                raise Malformed("is a second quorum, or names what is not defined before it")
            self.quorum = rest[0]
        else:
            raise Malformed("is no line of log, witness, group or quorum")

    def _defined(self, name: str) -> bool:
        return name in self.witnesses or any(name == group for group, _, _ in self.groups)

    def _named(self, name: str) -> None:
        if name == _NOBODY or len(name) > _NAME_CHARS_MAX or self._defined(name):
            raise Malformed("gives a name that is taken, too long or 'none'")

    def _log(self, rest: list[str]) -> None:
        try:
            key = notes.parse_verifier_key(rest[0], notes.ED25519).key
        except Malformed:
            other = parse_cosigner(rest[0])
            if other.kind == notes.COSIGNATURE:
                raise Malformed("gives a witness's key for a log") from None
            key = other.key
        if key in self._logs or len(self._logs) >= PARTS_MAX or any(len(url) > _URL_CHARS_MAX for url in rest[1:]):
            raise Malformed("names a log twice, one too many, or a URL that is too long")
        self._logs.add(key)

    def _witness(self, name: str, key_text: str, url: str = "") -> None:
        key = parse_cosigner(key_text)
        self._named(name)
        if not operator(name) or key.key in self._keys or len(url) > _URL_CHARS_MAX:
            raise Malformed("names no operator, a key that stands there already, or a URL that is too long")
        if len(self.witnesses) >= PARTS_MAX:
            raise Malformed("is one witness too many")
        self._keys.add(key.key)
        self.witnesses[name] = key

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        for member in members:
            if not self._defined(member) or member in self._grouped:
                raise Malformed("has a member that is not defined before it, or is in a group already")
            self._grouped.add(member)
        self._named(name)
        needed = {"any": 1, "all": len(members)}.get(threshold)
        if needed is None:
            needed = int(threshold) if _NUMBER.fullmatch(threshold) else 0
        if not 1 <= needed <= len(members) or len(self.groups) >= PARTS_MAX:
            raise Malformed("needs more members than it has, or none, or is one group too many")
        self.groups.append((name, needed, tuple(members)))
