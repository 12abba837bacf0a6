"""The policy bundle: one canonical document, named by its digest, and its compiled part with types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.authority import Person, people_of
from countermark.facts import FactDef
from countermark.model.canon import canon
from countermark.model.digest import BUNDLE, digest
from countermark.model.errors import CountermarkError, PolicyError
from countermark.model.tool import ToolSpec, tool_from_document
from countermark.policy.findings import Finding

VERSION = 1
UNKNOWN_PAYEE = "$unknown"  # the resource of an action whose payee stands in no bundle
NO_PAYEE = "$none"  # the resource of an action without a payee
BUILT_IN_FACTS = {
    "payee_known": "Bool",
    "local_minute": "Long",
    "local_weekday": "Long",
    "instructed": "Set<String>",
}

_MEMBERS = frozenset(
    ("cedar", "schema", "entities", "limits", "facts", "tools", "people", "agents", "payees", "ladders", "zone",
     "currencies", "author")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that may ask, and the person who owns it."""

    id: str
    owner: str


@dataclass(frozen=True, slots=True)
class Payee:
    """Somebody who may be paid. ``account`` is the provider's name for where the money goes."""

    id: str
    name: str
    account: str


@dataclass(frozen=True, slots=True)
class Ladder:
    """Who answers an escalation: ``quorum`` different people with one of ``roles`` within ``deadline_s`` seconds."""

    id: str
    roles: tuple[str, ...]
    quorum: int
    deadline_s: int


@dataclass(frozen=True)
class Compiled:
    """A bundle's compiled part (``docs/spec/policy.md``), by name."""

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

    @classmethod
    def from_document(cls, doc: Mapping[str, Any]) -> Compiled:
        """Read the compiled part. Raises ``PolicyError``, ``AuthorityError`` or ``SignatureError``."""
        if doc.keys() != _MEMBERS:
            raise PolicyError("a compiled bundle does not have exactly its members")
        payees = [Payee(item["id"], item["name"], item["account"]) for item in doc["payees"]]
        ladders = [
            Ladder(item["id"], tuple(item["roles"]), item["quorum"], item["deadline_s"]) for item in doc["ladders"]
        ]
        return cls(
            cedar=doc["cedar"],
            schema=doc["schema"],
            entities=doc["entities"],
            limits=dict(doc["limits"]),
            facts=tuple(FactDef.from_document(item) for item in doc["facts"]),
            tools={item["name"]: tool_from_document(item) for item in doc["tools"]},
            people=people_of(doc["people"]),
            agents={item["id"]: Agent(item["id"], item["owner"]) for item in doc["agents"]},
            payees={payee.id: payee for payee in payees},
            payee_by_account={payee.account: payee.id for payee in payees},
            ladders={ladder.id: ladder for ladder in ladders},
            zone=doc["zone"],
            currencies=tuple(doc["currencies"]),
            author=doc["author"],
        )


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
