"""Is a bundle well-formed (V09)? What its shape alone does not say (docs/spec/policy.md, docs/spec/verify.md)."""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from countermark_verify.bundle import BUNDLE_VALUES_MAX, KEPT, Bundle, read_bundle
from countermark_verify.canon import values_of
from countermark_verify.entities import entity_problems
from countermark_verify.errors import Malformed
from countermark_verify.facts import definition_identity
from countermark_verify.policy_text import Policy, read_policies
from countermark_verify.report import Ledger
from countermark_verify.schema_text import BUILT_IN, schema_problems

# Over all bundles of a pack. Every different definition is fed with every record; every policy is held against every
# tool; all bundles stay in memory.
DEFINITIONS_MAX = 512
COMPARISONS_MAX = 2_000_000
BUNDLES_BYTES_MAX = 64 * 1024**2
_PROBLEMS_MAX = 20


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
        self._bounds = Bounds()
        for name, data in members.items():
            if not name.startswith("policy/"):
                continue
            named = "sha256:" + name[len("policy/") : -len(".json")]
            try:
                bundle = self._bounds.read(bytes(data))
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


class Bounds:
    """What all bundles of a pack cost their reader together."""

    def __init__(self) -> None:
        self._bytes = self._values = self._comparisons = 0
        self._definitions: set[str] = set()

    def read(self, raw: bytes) -> Bundle:
        """Raises `Malformed` for a bundle that cannot be read, or is one too many."""
        self._bytes += len(raw)
        self._values += values_of(raw)
        if self._bytes > BUNDLES_BYTES_MAX or self._values > BUNDLE_VALUES_MAX:
            raise Malformed("makes all bundles together longer than can be followed")
        bundle = read_bundle(raw)
        self._definitions |= {definition_identity(document) for document in bundle.facts.values()}
        if len(self._definitions) > DEFINITIONS_MAX:
            raise Malformed("defines more facts than can be followed")
        self._comparisons += len(bundle.tools) * bundle.cedar.count(";")
        if self._comparisons > COMPARISONS_MAX:
            raise Malformed("has more policies and tools than can be held against each other")
        return bundle


@lru_cache(maxsize=KEPT)
def problems(bundle: Bundle) -> list[str]:
    """Why the bundle is not well-formed, at most twenty reasons."""
    found = _accounts(bundle) + entity_problems(bundle) + schema_problems(bundle) + _outputs(bundle)
    found += _misplaced(bundle) + _nobody(bundle)
    try:
        policies = read_policies(bundle.cedar)
    except Malformed as error:
        found.append(f"the bundle {error}")
    else:
        found += _policies(bundle, policies) + _by_words(bundle, policies)
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


def _by_words(bundle: Bundle, policies: tuple[Policy, ...]) -> list[str]:
    """`facts` and `reads` of every tool follow from the words of the policies that cover it."""
    # Word -> the policies that have it: so that a member costs one look, however many policies there are.
    having: dict[str, set[int]] = {}
    for index, policy in enumerate(policies):
        for word in policy.words:
            having.setdefault(word, set()).add(index)
    found = []
    for name, tool in bundle.tools.items():
        covering = {index for index, policy in enumerate(policies) if policy.covers(tool)}
        useful = (fact for fact, document in bundle.facts.items() if _useful(document, tool))
        facts = sorted(fact for fact in useful if not covering.isdisjoint(having.get(fact, ())))
        found += _differing(f"facts of {name}", tool["facts"], facts)
        grouped = {group: covering & having.get(group, set()) for group in ("args", "facts")}
        reads = []
        for member in sorted(_members(tool)):
            group, *names = member.split(".")
            reading = grouped.get(group, covering & having.get(group, set()))
            for own in names[:-1]:
                reading = reading & having.get(own, set())
            if not reading.isdisjoint(having.get(names[-1], ()) if names else covering):
                reads.append(member)
        found += _differing(f"reads of {name}", tool["reads"], reads)
    return found


def _differing(what: str, listed: list[str], expected: list[str]) -> list[str]:
    if listed == expected:
        return []
    differing = sorted(set(listed) ^ set(expected))
    where = f": {differing[0]}" if differing else ", sorted, each once"
    return [f"{what} are not those that the policies' texts require{where}"]


def _members(tool: Mapping[str, Any]) -> set[str]:
    """Every context member that an action of this tool has or may have."""
    members = {"amount", "currency"} if tool["class"] == "money" else set()
    members |= {"args." + item["alias"] for item in tool["args"] if not item["sensitive"]}
    return members | {"facts." + name for name in (*tool["facts"], *BUILT_IN)}


def _useful(definition: Mapping[str, Any], tool: Mapping[str, Any]) -> bool:
    """Do the tool's actions have every field that the definition needs?"""
    classes = {item["class"] for item in tool["args"]}
    fields = {"agent", "run", "mandate", "tool"} | {"payee"} & classes
    fields |= {"args." + item["alias"] for item in tool["args"] if not item["sensitive"]}
    if "amount" in classes:
        fields |= {"amount", "currency"}
    needed = set(definition["group"])
    if definition["kind"] in ("distinct", "grounded") or (definition["kind"], definition["of"]) == ("window", "amount"):
        needed.add(definition["of"])
    return needed <= fields


def _accounts(bundle: Bundle) -> list[str]:
    found = []
    for account, payees in bundle.accounts.items():
        if len(payees) > 1:
            found.append(f"{min(payees)} and {max(payees)} have the same account")
        if account in bundle.payees and account not in payees:
            found.append(f"the account of {min(payees)} is another payee's id")
    return found


def _nobody(bundle: Bundle) -> list[str]:
    """Whoever is nobody is kept from nothing: from answering for an own agent, or under an own policy."""
    named = {"the author": bundle.author} | {f"the owner of {agent}": owner for agent, owner in bundle.owners.items()}
    found = [f"{what} is {name!a}, who is nobody" for what, name in named.items() if name not in bundle.people]
    return found + [
        f"the AP2 source {name} is for {source['agent']!a}, which is no agent"
        for name, source in bundle.ap2.items()
        if source["agent"] not in bundle.owners
    ]


def _outputs(bundle: Bundle) -> list[str]:
    return [
        f"{name} names an output twice"
        for name, tool in bundle.tools.items()
        if len({output for output, _ in tool["outputs"]}) != len(tool["outputs"])
    ]


def _misplaced(bundle: Bundle) -> list[str]:
    """Only a floor's `where` looks at outputs (docs/spec/facts.md): an intent has none."""
    found = []
    for name, definition in bundle.facts.items():
        fields = [definition["of"], *definition["group"]]
        fields += [field for field, _ in definition["where"] if definition["use"] == "cap"]
        if any(field.startswith("output.") for field in fields):
            found.append(f"the fact {name} looks at an output where there is none")
    return found
