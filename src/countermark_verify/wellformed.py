"""Is a bundle well-formed (V09)? What its shape alone does not say (docs/spec/policy.md, docs/spec/verify.md)."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from countermark_verify.bundle import Bundle, read_bundle
from countermark_verify.canon import parse_loose, render
from countermark_verify.container import MEMBER_BYTES_MAX
from countermark_verify.errors import Malformed
from countermark_verify.policy_text import Policy, read_policies
from countermark_verify.report import Ledger

# Over all bundles of a pack: every definition is fed with every record.
DEFINITIONS_MAX = 8_192
_PROBLEMS_MAX = 20
_BUILT_IN = ("instructed", "local_minute", "local_weekday", "payee_known")


class Shelf:
    """The bundles of a pack. What is wrong with one is said at the activation that names it.

    A bundle that can be read but is not well-formed stays usable, so that the later steps can still recompute what
    it decided.
    """

    def __init__(self, ledger: Ledger, members: Mapping[str, memoryview]) -> None:
        self._ledger = ledger
        self.bundles: dict[str, Bundle] = {}
        self._problems: dict[str, list[str]] = {}
        self._activated: set[str] = set()
        definitions = 0
        for name, data in members.items():
            if not name.startswith("policy/"):
                continue
            named = "sha256:" + name[len("policy/") : -len(".json")]
            try:
                bundle = read_bundle(bytes(data))
                definitions += len(bundle.facts)
                if definitions > DEFINITIONS_MAX:
                    raise Malformed("defines more facts than can be followed")
                if bundle.digest != named:
                    raise Malformed(f"has the digest {bundle.digest}")
            except Malformed as error:
                self._problems[named] = [f"the bundle {error}"]
                continue
            self.bundles[named] = bundle
            self._problems[named] = problems(bundle)

    def activate(self, seq: int, digest: str) -> None:
        """An activation names this bundle."""
        self._activated.add(digest)
        for message in self._problems.get(digest, ["the pack has no bundle of this digest"]):
            self._ledger.refute("V09.bundle", message, seq, None, digest)

    def finish(self) -> None:
        """Bundles that no activation names: they have no place in the pack, and no position."""
        for digest in sorted(self._problems.keys() - self._activated):
            self._ledger.refute("V09.bundle", "no activation names this bundle", None, None, digest)


def problems(bundle: Bundle) -> list[str]:
    """Why the bundle is not well-formed, at most twenty reasons."""
    found = _accounts(bundle) + _entities(bundle) + _outputs(bundle)
    try:
        policies = read_policies(bundle.cedar)
    except Malformed as error:
        found.append(f"the bundle {error}")
    else:
        found += _policies(bundle, policies) + _reads(bundle, policies)
    return found[:_PROBLEMS_MAX]


def _policies(bundle: Bundle, policies: tuple[Policy, ...]) -> list[str]:
    counts = Counter(policy.id for policy in policies)
    found = ["a policy has no @id"] if counts[""] else []
    found += [f"two policies have the @id {name}" for name, count in counts.items() if name and count > 1]
    for policy in policies:
        ladder = policy.annotations.get("escalate")
        if ladder is not None and not policy.forbids:
            found.append(f"{policy.id} is a permit with @escalate")
        if ladder is not None and ladder not in bundle.ladders:
            found.append(f"{policy.id} escalates to {ladder!a}, which is no ladder")
    return found


def _reads(bundle: Bundle, policies: tuple[Policy, ...]) -> list[str]:
    """`reads` lists every member whose names all occur as words of one policy that covers the tool, and no other."""
    found = []
    for name, tool in bundle.tools.items():
        texts = {policy.words for policy in policies if policy.covers(tool)}
        expected = sorted(member for member in _members(tool) if any(_names(member) <= words for words in texts))
        if tool["reads"] != expected:
            differing = sorted(set(tool["reads"]) ^ set(expected))
            what = f": {differing[0]}" if differing else ", sorted, each once"
            found.append(f"reads of {name} are not those that the policies' texts require{what}")
    return found


def _members(tool: Mapping[str, Any]) -> set[str]:
    """Every context member that an action of this tool has or may have."""
    members = {"amount", "currency"} if tool["class"] == "money" else set()
    members |= {"args." + item["alias"] for item in tool["args"] if not item["sensitive"]}
    return members | {"facts." + name for name in (*tool["facts"], *_BUILT_IN)}


def _names(member: str) -> set[str]:
    return set(member.split("."))


def _entities(bundle: Bundle) -> list[str]:
    """Exactly every agent with its owner, every payee, the two stand-ins for one, and the limits."""
    expected = {("Agent", name): {"owner": owner} for name, owner in bundle.owners.items()}
    payees: list[str] = [*bundle.payees, "$unknown", "$none"]
    wanted = [_entity("Payee", name, {}) for name in payees]
    wanted += [_entity(kind, name, attributes) for (kind, name), attributes in expected.items()]
    if bundle.limits:
        wanted.append(_entity("Limits", "limits", dict(bundle.limits)))
    try:
        listed: Any = parse_loose(bundle.entities.encode(), MEMBER_BYTES_MAX)
    except (Malformed, UnicodeEncodeError) as error:
        return [f"the text of the entities {error}"]
    if type(listed) is not list:
        return ["the entities are not a list"]
    # Rendered, since Python holds True == 1, and JSON does not.
    have, want = Counter(map(render, listed)), Counter(map(render, wanted))
    missing, extra = sorted((want - have).elements()), sorted((have - want).elements())
    found = [f"the entities lack {raw.decode()[:200]}" for raw in missing]
    return found + [f"the entities have {raw.decode()[:200]}" for raw in extra]


def _entity(kind: str, name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"uid": {"type": kind, "id": name}, "attrs": attributes, "parents": []}


def _accounts(bundle: Bundle) -> list[str]:
    found = []
    for account, payees in bundle.accounts.items():
        if len(payees) > 1:
            found.append(f"{min(payees)} and {max(payees)} have the same account")
        if account in bundle.payees and account not in payees:
            found.append(f"the account of {min(payees)} is another payee's id")
    return found


def _outputs(bundle: Bundle) -> list[str]:
    return [
        f"{name} names an output twice"
        for name, tool in bundle.tools.items()
        if len({output for output, _ in tool["outputs"]}) != len(tool["outputs"])
    ]
