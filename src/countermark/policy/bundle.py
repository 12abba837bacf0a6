"""The policy bundle: one canonical document, named by its digest, and its compiled part with types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from countermark.authority import Ap2Source, Person, PublicKey, is_origin, people_of
from countermark.facts import FactDef
from countermark.model.canon import canon
from countermark.model.digest import BUNDLE, digest
from countermark.model.errors import ArgumentError, CountermarkError, PolicyError
from countermark.model.tool import ToolSpec, tool_from_document
from countermark.model.words import close_to, listed, quoted
from countermark.policy.findings import Finding
from countermark.policy.ladders import Ladder, ladder_of
from countermark.policy.retention import Retention
from countermark.policy.witness import WitnessRule, rule_from

VERSION = 1
AGENT_KEYS_MAX = 8  # of one agent: the one in use, and the next
UNKNOWN_PAYEE = "$unknown"  # the resource of an action whose payee nobody knows
REGISTERED_PAYEE = "_registered"  # that of one whose payee stands in the register of payees only
NO_PAYEE = "$none"  # the resource of an action without a payee
BUILT_IN_FACTS = {
    "payee_known": "Bool",
    "local_minute": "Long",
    "local_weekday": "Long",
    "local_day": "Long",  # recorded only where a policy reads it, unlike the others
    "instructed": "Set<String>",
}

_MEMBERS = frozenset(
    ("cedar", "schema", "entities", "limits", "facts", "tools", "people", "agents", "payees", "ladders", "zone",
     "currencies", "author")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that may ask, the person who owns it, and the public keys with which it may sign its requests."""

    id: str
    owner: str
    keys: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The compiled form; ``keys`` stands there only when there are any, so older bundles keep their digests."""
        return {"id": self.id, "owner": self.owner, **({"keys": list(self.keys)} if self.keys else {})}


@dataclass(frozen=True, slots=True)
class Payee:
    """Somebody who may be paid. ``account`` is the provider's name for where the money goes."""

    id: str
    name: str
    account: str


@dataclass(frozen=True)
class Compiled:
    """A bundle's compiled part (``docs/spec/policy.md``), by name. ``test``: no real money, so one person may do."""

    cedar: str
    schema: str
    entities: str
    limits: Mapping[str, int]
    facts: tuple[FactDef, ...]
    tools: Mapping[str, ToolSpec]
    people: Mapping[str, Person]
    agents: Mapping[str, Agent]
    payees: Mapping[str, Payee]
    payee_by_account: Mapping[str, str]
    ladders: Mapping[str, Ladder]
    zone: str
    currencies: tuple[str, ...]
    author: str
    test: bool = False
    ap2: Mapping[str, Ap2Source] = field(default_factory=dict)
    retention: Retention | None = None  # None: nothing may be erased
    console: str = ""  # origin of the page where people's passkeys work; empty where the policy names none
    witness: WitnessRule | None = None

    @classmethod
    def from_document(cls, doc: Mapping[str, Any]) -> Compiled:
        """Read the compiled part. Raises ``PolicyError``, ``AuthorityError`` or ``SignatureError``."""
        if (
            doc.keys() - {"test", "console", "ap2", "retention", "witness"} != _MEMBERS
            or doc.get("test", True) is not True
            or doc.get("ap2") == []
        ):
            raise PolicyError("a compiled bundle does not have exactly its members")
        if "witness" not in doc and any("witness" in item for item in doc["tools"]):
            raise PolicyError("a tool of the bundle waits for witnesses, and none is named")
        payees = [Payee(item["id"], item["name"], item["account"]) for item in doc["payees"]]
        ladders = [ladder_of(item) for item in doc["ladders"]]
        return cls(
            cedar=doc["cedar"],
            schema=doc["schema"],
            entities=doc["entities"],
            limits=dict(doc["limits"]),
            facts=tuple(FactDef.from_document(item) for item in doc["facts"]),
            tools={item["name"]: tool_from_document(item) for item in doc["tools"]},
            people=people_of(doc["people"]),
            agents=_agents(doc["agents"], doc["people"]),
            payees={payee.id: payee for payee in payees},
            payee_by_account={payee.account: payee.id for payee in payees},
            ladders={ladder.id: ladder for ladder in ladders},
            zone=doc["zone"],
            currencies=tuple(doc["currencies"]),
            author=doc["author"],
            test="test" in doc,
            ap2=_ap2(doc.get("ap2", ())),
            console=_console(doc),
            retention=Retention.from_document(doc["retention"]) if "retention" in doc else None,
            witness=rule_from(doc["witness"]) if "witness" in doc else None,
        )

    def check_names(self) -> None:
        """Author and owners are people of the bundle, AP2 sources for its agents: who is nobody is kept from nothing.

        Asked when the bundle is activated. Raises ``PolicyError``.
        """
        named = {"the author": self.author} | {f"the owner of {one.id}": one.owner for one in self.agents.values()}
        for what, name in named.items():
            if name not in self.people:
                raise PolicyError(f"{what} is {name[:70]!r}, who is not one of the bundle's people")
        for source in self.ap2.values():
            if source.agent not in self.agents:
                raise PolicyError(f"the AP2 source {source.id} is for {source.agent[:70]!r}, which is no agent")

    def check_currency(self, code: object, field: str = "currency") -> None:
        """Whether amounts may be moved in a currency. Raises ``ArgumentError`` with the argument's ``field``."""
        if code not in self.currencies:
            hint = f"{close_to(str(code), self.currencies)} Currencies here: {listed(self.currencies)}."
            raise ArgumentError(f"the currency {quoted(code)} may not be moved here", field=field, hint=hint.strip())


def _console(doc: Mapping[str, Any]) -> str:
    """The console's origin, which stands there only when the policy names one."""
    if "console" not in doc:
        return ""
    if type(doc["console"]) is not str or not is_origin(doc["console"]):
        raise PolicyError("the console of the bundle is not the origin of a page")
    return str(doc["console"])


def _ap2(items: Sequence[Mapping[str, Any]]) -> dict[str, Ap2Source]:
    """Sources of AP2 mandates by ID. The member stands in a bundle only when there are any."""
    found = {item["id"]: Ap2Source.of(item) for item in items}
    if len(found) != len(items):
        raise PolicyError("two sources of AP2 mandates have one name")
    return found


def _agents(items: Sequence[Mapping[str, Any]], people: Sequence[Mapping[str, Any]]) -> dict[str, Agent]:
    """Agents by ID. A key is one agent's alone, and no person's: it must say who asked."""
    found: dict[str, Agent] = {}
    taken = {key for person in people for key in person["keys"]}
    for item in items:
        if not {"id", "owner"} <= item.keys() <= {"id", "owner", "keys"} or item.get("keys") == []:
            raise PolicyError("an agent of the bundle does not have exactly its members")
        keys = tuple(str(PublicKey.parse(key)) for key in item.get("keys", ()))
        if len(set(keys)) != len(keys) or taken & set(keys) or len(keys) > AGENT_KEYS_MAX:
            raise PolicyError("two of the bundle's agents or people have the same key, or an agent has too many")
        taken |= set(keys)
        found[item["id"]] = Agent(item["id"], item["owner"], keys)
    return found


@dataclass(frozen=True)
class Bundle:
    """A policy bundle. ``raw`` are the canonical bytes of ``document``, ``digest`` their digest."""

    document: Mapping[str, Any]
    raw: bytes
    digest: str
    compiled: Compiled
    warnings: tuple[Finding, ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any], warnings: tuple[Finding, ...] = ()) -> Bundle:
        """The bundle of a document, as the store keeps it.

        Raises:
            PolicyError: the document is not a bundle of this version.
        """
        try:
            if set(document) != {"v", "source", "compiled"} or document["v"] != VERSION:
                raise PolicyError("not a policy bundle of a known version")
            compiled = Compiled.from_document(document["compiled"])
            raw = canon(document)
        except PolicyError:
            raise
        except CountermarkError as error:
            raise PolicyError(f"a policy bundle does not hold together: {error.message}") from None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise PolicyError("a policy bundle has a member of the wrong shape") from None
        return cls(document, raw, digest(BUNDLE, raw), compiled, warnings)
