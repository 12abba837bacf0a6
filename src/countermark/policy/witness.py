"""The witness rule of a policy: who must have seen the log, and how lately, before money moves.

``policies/witnesses.policy`` is a C2SP tlog-policy; ``[witness] stale_after`` of ``limits.toml`` says how old the last
answer of its quorum may be. A witness that whoever runs the deployment runs too never counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from countermark.log import (
    NO_WITNESS,
    WitnessPolicy,
    attainable,
    cosigned_by,
    open_checkpoint,
    operator_of,
    own_witnesses,
    parse_policy,
    quorum,
)
from countermark.model.clock import US
from countermark.model.errors import ConfigError, PolicyError
from countermark.model.tool import CALLER, ToolSpec
from countermark.model.words import nearest
from countermark.net import origin_of
from countermark.policy.findings import Findings
from countermark.policy.toml import Table

WITNESSES = "policies/witnesses.policy"
STALE_S_MIN = 5
STALE_S_MAX = 86_400
DRIFT_US_MAX = 300 * US  # between a witness's clock and ours, or what it signed once would serve for ever
CLASSES = ("money", "change")  # what waits for witnesses; reading does not

_PREFIX = re.compile(r"(https?://[^/?#]+)(?:/[^?#]*)?")
_LINE = re.compile(r"line (\d+) of the witness policy: (.*)", re.DOTALL)
_UNDEFINED = re.compile(r"(\S+) is not defined on a line before")


@dataclass(frozen=True)
class WitnessRule:
    """A bundle's member ``witness``: the policy's text, read, and how old its quorum's answer may be (seconds)."""

    text: str
    stale_after_s: int
    policy: WitnessPolicy

    def document(self) -> dict[str, Any]:
        return {"policy": self.text, "stale_after_s": self.stale_after_s}


class Witnessed(NamedTuple):
    """The newest ``head.witnessed``: how far the log was seen, and when the answer came (microseconds)."""

    size: int
    answered: int


def rule_from(doc: Any) -> WitnessRule:
    """The member of a compiled bundle. Raises ``PolicyError``."""
    if not isinstance(doc, Mapping) or doc.keys() != {"policy", "stale_after_s"}:
        raise PolicyError("the witness rule of the bundle does not have exactly its members")
    text, stale_s = doc["policy"], doc["stale_after_s"]
    if type(text) is not str or type(stale_s) is not int or not STALE_S_MIN <= stale_s <= STALE_S_MAX:
        raise PolicyError("the witness rule of the bundle has a member of the wrong kind")
    rule = WitnessRule(text, stale_s, parse_policy(text))
    if rule.policy.rule == NO_WITNESS:
        raise PolicyError("the witness rule of the bundle asks no witness")
    return rule


def check_own(rule: WitnessRule | None, deployment: str) -> None:
    """Raises ``PolicyError`` (``own_witness``) when the quorum needs a witness of the deployment's own operator."""
    if rule is not None and not attainable(rule.policy, deployment):
        raise PolicyError(
            "the quorum of the witness policy cannot be reached without a witness of our own", code="own_witness",
            hint="Our own witness says nothing to others: name witnesses that somebody else runs.",
        )  # fmt: skip


def is_own(name: str, deployment: str) -> bool:
    """Whether a witness of this name is run by whoever runs the deployment."""
    return operator_of(name).casefold() == deployment.casefold()


def is_stale(rule: WitnessRule, witnessed: Witnessed | None, at: int) -> bool:
    """Whether the newest answer of the quorum is too old at ``at`` (microseconds), or there is none."""
    return witnessed is None or at - witnessed.answered > rule.stale_after_s * US


def check_witnessed(
    rule: WitnessRule | None, body: Mapping[str, Any], *, log_keys: Sequence[str], deployment: str, at: int,
    before: Witnessed | None,
) -> None:  # fmt: skip
    """Judge the body of a ``head.witnessed`` (``docs/spec/record.md``) by the rule in force.

    Raises:
        PolicyError or SignatureError: what is wrong with it.
    """
    if rule is None:
        raise PolicyError("the policy in force names no witnesses", code="not_witnessed")
    numbers = [body.get(name) for name in ("size", "asked", "answered")]
    texts = [body.get(name) for name in ("root", "note")]
    right = all(type(one) is int for one in numbers) and all(type(one) is str for one in texts)
    if len(body) != len(numbers) + len(texts) or not right:
        raise PolicyError("what came from the witnesses does not have exactly its members", code="not_witnessed")
    size, note, asked, answered = body["size"], body["note"], body["asked"], body["answered"]
    if not asked <= answered <= at or (before is not None and size <= before.size):
        raise PolicyError("the witnesses' answer is from another time, or for an older head", code="not_witnessed")
    raw = note.encode("utf-8", "surrogatepass")
    head = open_checkpoint(raw, log_keys)
    if (head.size, head.root.hex()) != (size, body["root"]):
        raise PolicyError("the witnesses' note is that of another head", code="not_witnessed")
    found = cosigned_by(rule.policy, raw)
    if not quorum(rule.policy, found, deployment):
        raise PolicyError("the witnesses on the note are not enough", code="not_witnessed")
    for name, one in found.items():
        if not asked - DRIFT_US_MAX <= one.at_s * US <= answered + DRIFT_US_MAX:
            raise PolicyError(
                f"the cosignature of {name} is not of now: its clock and ours differ by more than 5 minutes",
                code="not_witnessed", hint="Compare this machine's clock: `countermark doctor`.",
            )  # fmt: skip


def read_stale_after(root: Table) -> tuple[int, int] | None:
    """``[witness] stale_after`` in seconds and the line of its table; None without the table."""
    if "witness" not in root:
        return None
    table = root.table("witness")
    table.only("stale_after")
    stale_s = table.duration_s("stale_after")
    if "stale_after" in table and not STALE_S_MIN <= stale_s <= STALE_S_MAX:
        table.error("stale_after", "bad_value", f"'stale_after' must lie between {STALE_S_MIN}s and 24h",
                    "Heads are published about once a second: 60s is a good beginning.")  # fmt: skip
        stale_s = STALE_S_MIN
    return stale_s, table.line


def read_rule(text: str | None, stale: tuple[int, int] | None, deployment: str, limits: str, findings: Findings
              ) -> WitnessRule | None:  # fmt: skip
    """The rule of both files; what is wrong with either, or that one of them is missing, goes to the findings."""
    if text is None:
        if stale is not None:
            findings.error(limits, stale[1], "missing_file", f"[witness] without {WITNESSES}: nobody is asked",
                           f"Say in {WITNESSES} who is, or leave [witness] out.")  # fmt: skip
        return None
    if stale is None:
        findings.error(limits, 0, "missing_key", f"{WITNESSES} is there, but no [witness] in {limits}",
                       'Add [witness] with stale_after = "60s": how old the last answer may be.')  # fmt: skip
    policy = _parsed(text, findings)
    if policy is None:
        return None
    _check_policy(policy, text, deployment, findings)
    return WitnessRule(text, stale[0] if stale is not None else STALE_S_MIN, policy)


def _parsed(text: str, findings: Findings) -> WitnessPolicy | None:
    try:
        return parse_policy(text)
    except PolicyError as error:
        found = _LINE.fullmatch(error.message)
        line, why = (int(found[1]), found[2]) if found else (0, error.message)
        missing = _UNDEFINED.fullmatch(why)
        hint = "It is a C2SP tlog-policy: log, witness, group and quorum lines."
        findings.error(WITNESSES, line, error.code, why, nearest(missing[1], _names(text, line)) if missing else hint)
        return None


def _names(text: str, line: int) -> Iterable[str]:
    """What is defined above a line."""
    rows = (row.split() for row in text.split("\n")[: line - 1])
    return [row[1] for row in rows if len(row) > 1 and row[0] in ("witness", "group")]


def _check_policy(policy: WitnessPolicy, text: str, deployment: str, findings: Findings) -> None:
    quorum = next((n for n, row in enumerate(text.split("\n"), 1) if row.split()[:1] == ["quorum"]), 0)
    if policy.rule == NO_WITNESS:
        findings.error(WITNESSES, quorum, "no_witness", "the quorum is 'none', so nobody need see anything",
                       f"Name a witness or a group, or remove {WITNESSES}.")  # fmt: skip
    elif not attainable(policy, deployment):
        findings.error(WITNESSES, quorum, "own_witness", "the quorum needs a witness of our own, which never counts",
                       f"{deployment!r} is us: name witnesses that somebody else runs.")  # fmt: skip
    own = own_witnesses(policy, deployment)
    for number, row in enumerate(text.split("\n"), 1):
        words = row.split()
        if words[:1] != ["witness"]:
            continue
        if words[1] in own:
            findings.warn(WITNESSES, number, "own_witness", f"{words[1]} is our own: it is asked, and never counts")
        if len(words) < 4:
            findings.warn(WITNESSES, number, "no_address", f"{words[1]} has no address, so it cannot be asked")
        elif not _is_prefix(words[3]):
            findings.error(WITNESSES, number, "bad_witness_policy", f"{words[1]} cannot be asked at {words[3][:200]}",
                           "Write https://host/prefix, in small letters; http only to this machine.")  # fmt: skip


def _is_prefix(url: str) -> bool:
    """Whether a submission prefix is one that the gate would send to."""
    found = _PREFIX.fullmatch(url)
    try:
        return found is not None and bool(origin_of(found[1]))
    except (ConfigError, ValueError):
        return False


def read_before(table: Table, tool_class: str, connector: str) -> str:
    """A tool's ``witness``: ``before``, or nothing."""
    if "witness" not in table:
        return ""
    before = table.choice("witness", ("before",))
    if connector == CALLER:
        table.error("witness", "bad_value", "a tool that its caller runs cannot wait for witnesses",
                    "Once it is admitted, the gate does not hold it back.")  # fmt: skip
    elif tool_class not in CLASSES:
        table.error("witness", "bad_value", "a tool that only reads does not wait for witnesses", "Leave it out.")
    return before


def check_before(tools: Mapping[str, ToolSpec], lines: Mapping[str, int], rule: WitnessRule | None, file: str,
                 findings: Findings) -> None:  # fmt: skip
    """No tool may wait for witnesses that nobody named."""
    for name, tool in sorted(tools.items()):
        if tool.witness and rule is None and not findings.has_errors_in(WITNESSES):
            findings.error(file, lines.get(name, 0), "no_witness", f"{name} waits for witnesses, and none is named",
                           f"Say who in {WITNESSES}, and [witness] stale_after in limits.toml.")  # fmt: skip
