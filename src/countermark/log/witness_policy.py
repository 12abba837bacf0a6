"""C2SP tlog-policy: which logs, which witnesses, and which of them together make a checkpoint good.

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <name>...
    quorum <name>|none

A witness is called ``OPERATOR`` or ``OPERATOR/NAME``: who runs it is the part before the first slash.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from countermark.log.cosign import SUBTREE, Cosignature, CosignerKey, parse_cosigner, read_cosignatures
from countermark.log.notes import VerifierKey, parse_vkey
from countermark.model.errors import PolicyError, SignatureError

POLICY_BYTES_MAX = 262_144
LOGS_MAX = 64  # C2SP tlog-policy recommends room for 32 of each
WITNESSES_MAX = 64
GROUPS_MAX = 64
NAME_CHARS_MAX = 200
URL_CHARS_MAX = 2_000
NONE = "none"

_FORBIDDEN = re.compile("[^\t\n\x20-\x7e\x80-\U0010ffff]")
_COUNT = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A log that the policy knows: an Ed25519 key of type 1, or an ML-DSA-44 one of type 6."""

    key: VerifierKey | CosignerKey
    vkey: str
    url: str


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A witness by its name within the policy; ``url`` is its submission prefix, or empty."""

    name: str
    key: CosignerKey
    url: str

    @property
    def operator(self) -> str:
        return operator_of(self.name)


@dataclass(frozen=True, slots=True)
class Group:
    """``needed`` of ``members``, which are witnesses and groups that stand before it."""

    name: str
    needed: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """A policy as it was read. ``rule`` is the name of what must have witnessed, or ``none``."""

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[Group, ...]
    rule: str


def operator_of(name: str) -> str:
    """Who runs the witness of that name."""
    return name.partition("/")[0]


def operators(policy: WitnessPolicy) -> Mapping[str, str]:
    """The operator of each witness, by the witness's name."""
    return {witness.name: witness.operator for witness in policy.witnesses}


def own_witnesses(policy: WitnessPolicy, deployment: str) -> frozenset[str]:
    """The witnesses that whoever runs the deployment runs too: they never count for anybody else."""
    own = deployment.casefold()
    return frozenset(one.name for one in policy.witnesses if one.operator.casefold() == own)


def quorum(policy: WitnessPolicy, cosigned: Collection[str], deployment: str) -> bool:
    """Whether the witnesses named in ``cosigned`` are enough, without those of the deployment itself.

    A group that needs one of the latter is never satisfied: leaving a witness out does not lower what is needed.
    """
    if policy.rule == NONE:
        return True
    own = own_witnesses(policy, deployment)
    met = {one.name for one in policy.witnesses if one.name in cosigned and one.name not in own}
    for group in policy.groups:  # each refers only to what stands before it
        if sum(member in met for member in group.members) >= group.needed:
            met.add(group.name)
    return policy.rule in met


def attainable(policy: WitnessPolicy, deployment: str) -> bool:
    """Whether all witnesses together would be enough; a policy that nothing satisfies is a mistake."""
    return quorum(policy, {one.name for one in policy.witnesses}, deployment)


def cosigned_by(policy: WitnessPolicy, note: bytes) -> Mapping[str, Cosignature]:
    """The policy's witnesses whose cosignatures stand on a checkpoint, by their names in the policy.

    An ML-DSA-44 line without a time is left out: it does not say that the head was the newest. Raises
    ``SignatureError`` as ``read_cosignatures`` does.
    """
    names = {one.key: one.name for one in policy.witnesses}
    found = read_cosignatures(note, names)
    return {names[one.key]: one for one in found if one.at_s}


def parse_policy(text: str) -> WitnessPolicy:
    """Read a policy strictly. Raises ``PolicyError`` (``bad_witness_policy``), naming the line."""
    if type(text) is not str or len(text) > POLICY_BYTES_MAX or len(_octets(text)) > POLICY_BYTES_MAX:
        raise _bad(0, f"it is longer than {POLICY_BYTES_MAX} bytes")
    if not text.endswith("\n"):
        raise _bad(text.count("\n") + 1, "the last line does not end with a newline")
    reader = _Reader()
    for number, line in enumerate(text[:-1].split("\n"), 1):
        if _FORBIDDEN.search(line):
            raise _bad(number, "it holds a control character")
        words = [word for word in re.split("[ \t]+", line) if word]
        if not words or words[0].startswith("#"):
            continue
        try:
            reader.line(words)
        except _LineError as error:
            raise _bad(number, str(error)) from None
        except SignatureError as error:
            raise _bad(number, error.message) from None
    return reader.policy()


class _LineError(Exception):
    """What is wrong with a line; ``parse_policy`` says which."""


class _Reader:
    def __init__(self) -> None:
        self._logs: list[PolicyLog] = []
        self._witnesses: list[PolicyWitness] = []
        self._groups: list[Group] = []
        self._names: set[str] = set()
        self._members: set[str] = set()
        self._keys: dict[str, set[bytes]] = {"log": set(), "witness": set()}
        self._rule = ""

    def line(self, words: list[str]) -> None:
        known = {"log": self._log, "witness": self._witness, "group": self._group, "quorum": self._quorum}
        handler = known.get(words[0])
        if handler is None:
            raise _LineError("it begins with none of log, witness, group, quorum")
        handler(words[1:])

    def policy(self) -> WitnessPolicy:
        if not self._rule:
            raise _bad(0, "it has no quorum line")
        return WitnessPolicy(tuple(self._logs), tuple(self._witnesses), tuple(self._groups), self._rule)

    def _log(self, rest: list[str]) -> None:
        if not 1 <= len(rest) <= 2:
            raise _LineError("a log is written: log VKEY [URL]")
        if len(self._logs) >= LOGS_MAX:
            raise _LineError(f"there are more than {LOGS_MAX} logs")
        try:
            key: VerifierKey | CosignerKey = parse_vkey(rest[0])
        except SignatureError as error:
            if error.code == "bad_key":
                raise
            key = parse_cosigner(rest[0])
            if key.kind != SUBTREE:
                raise _LineError("the key is a witness's, not a log's") from None
        self._once("log", key.public)
        self._logs.append(PolicyLog(key, rest[0], _url(rest[1:])))

    def _witness(self, rest: list[str]) -> None:
        if not 2 <= len(rest) <= 3:
            raise _LineError("a witness is written: witness NAME VKEY [URL]")
        if len(self._witnesses) >= WITNESSES_MAX:
            raise _LineError(f"there are more than {WITNESSES_MAX} witnesses")
        if not operator_of(rest[0]):
            raise _LineError("a witness's name begins with its operator's, not with a slash")
        key = parse_cosigner(rest[1])
        self._define(rest[0])
        self._once("witness", key.public)
        self._witnesses.append(PolicyWitness(rest[0], key, _url(rest[2:])))

    def _group(self, rest: list[str]) -> None:
        if len(rest) < 3:
            raise _LineError("a group is written: group NAME all|any|K MEMBER...")
        if len(self._groups) >= GROUPS_MAX:
            raise _LineError(f"there are more than {GROUPS_MAX} groups")
        name, threshold, *members = rest
        for member in members:
            if member not in self._names:
                raise _LineError(f"{member} is not defined on a line before")
            if member in self._members:
                raise _LineError(f"{member} is already a member of a group")
            self._members.add(member)
        self._define(name)
        self._groups.append(Group(name, _needed(threshold, len(members)), tuple(members)))

    def _quorum(self, rest: list[str]) -> None:
        if len(rest) != 1:
            raise _LineError("a quorum is written: quorum NAME")
        if self._rule:
            raise _LineError("there is a second quorum line")
        if rest[0] != NONE and rest[0] not in self._names:
            raise _LineError(f"{rest[0]} is not defined on a line before")
        self._rule = rest[0]

    def _define(self, name: str) -> None:
        if name == NONE or len(name) > NAME_CHARS_MAX:
            raise _LineError(f"a name is {NONE}, which means no witness, or is longer than {NAME_CHARS_MAX} characters")
        if name in self._names:
            raise _LineError(f"{name} is defined twice")
        self._names.add(name)

    def _once(self, kind: str, public: bytes) -> None:
        """C2SP tlog-policy: two keys are duplicates when the bytes are the same, whatever their names."""
        if public in self._keys[kind]:
            raise _LineError(f"the key of this {kind} stands twice")
        self._keys[kind].add(public)


def _needed(threshold: str, members: int) -> int:
    if threshold in ("any", "all"):
        return 1 if threshold == "any" else members
    if _COUNT.fullmatch(threshold) is None or int(threshold) > members:
        raise _LineError("a group needs all, any, or a number from 1 to that of its members")
    return int(threshold)


def _url(rest: list[str]) -> str:
    if rest and len(rest[0]) > URL_CHARS_MAX:
        raise _LineError(f"a URL is longer than {URL_CHARS_MAX} characters")
    return rest[0] if rest else ""


def _octets(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise _bad(0, "it holds a lone surrogate") from None


def _bad(line: int, why: str) -> PolicyError:
    where = f"line {line} of the witness policy" if line else "the witness policy"
    return PolicyError(f"{where}: {why}", code="bad_witness_policy", hint="See docs/witnesses.md.")
