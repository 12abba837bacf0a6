"""One action with all its records, and what each of them is called in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from countermark.audit import words
from countermark.audit.lookup import Near, OfKind, newest
from countermark.audit.rebuild import Unseal, opened
from countermark.audit.sources import bundle_document, present_state
from countermark.journal import SqliteStore
from countermark.model.records import Record
from countermark.model.tool import ToolSpec, Value, tool_from_document
from countermark.model.values import EXECUTING


@dataclass(frozen=True)
class Told:
    """One action with all its records, and how to look up what they point to."""

    store: SqliteStore
    records: tuple[Record, ...]
    unseal: Unseal | None
    near: Near | None = None

    @cached_property
    def decisions(self) -> list[Record]:
        return [record for record in self.records if record.kind == "action.decided"]

    @property
    def first(self) -> Record:
        return self.decisions[0]

    @property
    def last(self) -> Record:
        """The decision that counts: the newest."""
        return self.decisions[-1]

    @property
    def body(self) -> Mapping[str, Any]:
        return self.last.body

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record.kind == kind]

    @property
    def outcome(self) -> Record | None:
        settled = self.of("action.settled")
        return settled[-1] if settled else None

    @property
    def answers(self) -> list[Record]:
        return self.of("escalation.answered")

    @property
    def status(self) -> str:
        """``confirmed``, ``failed``, ``unknown``, ``pending``, ``denied``, ``refused``, ``expired`` or ``waiting``."""
        if self.outcome is not None:
            return str(self.outcome.body["outcome"])
        disposition = self.body["disposition"]
        if disposition in EXECUTING:
            return "pending"
        if disposition == "deny":
            return "denied"
        if any(answer.body["state"] == "refused" for answer in self.answers):
            return "refused"
        return "expired" if self.of("escalation.expired") else "waiting"

    @cached_property
    def compiled(self) -> Mapping[str, Any]:
        return self.bundle(self.body["bundle"])

    def bundle(self, digest: str) -> Mapping[str, Any]:
        """The compiled part of a bundle's document."""
        document = bundle_document(self.store, digest) if self.near is None else self.near.document(digest)
        return document["compiled"]  # type: ignore[no-any-return]

    @property
    def of_kind(self) -> OfKind | None:
        return None if self.near is None else self.near.of_kind

    def newest(self, action: str) -> int | None:
        """Seq of the newest record about another action."""
        return newest(self.store, "id:" + action) if self.near is None else self.near.newest("id:" + action)

    @cached_property
    def tool(self) -> ToolSpec | None:
        for document in self.compiled["tools"]:
            if document["name"] == self.body["tool"]:
                return tool_from_document(document)
        return None

    @cached_property
    def hidden(self) -> dict[str, Value]:
        """Sensitive values by alias, as far as the caller may see them and they are not erased."""
        if self.unseal is None:
            return {}
        return opened(self.last.body, self.unseal(self.last.seq))

    @cached_property
    def registered(self) -> Mapping[str, str]:
        """Names of the payees of now, for those that only an order made known."""
        if self.near is not None and self.near.names is not None:
            return self.near.names
        return {name: payee.name for name, payee in present_state(self.store).register.known.payees.items()}

    def payee(self, payee: str | None) -> str:
        """A payee by name; one that no bundle knows by what the agent gave."""
        for entry in self.compiled["payees"]:
            if entry["id"] == payee:
                return f"{entry['name']} ({payee})"
        if payee is not None and not payee.startswith("p:") and payee in self.registered:
            return f"{words.safe(self.registered[payee])} ({payee})"
        argument = None if self.tool is None else self.tool.one("payee")
        given = self.body["args"].get(argument.alias) if argument is not None else None
        account = given if type(given) is str else self.hidden.get(argument.alias) if argument is not None else None
        return f"an account that the policy does not know ({payee if account is None else words.safe(account)})"

    def person(self, name: str) -> str:
        """A person by name and ID."""
        for entry in self.compiled["people"]:
            if entry["id"] == name and entry["name"] != name:
                return f"{entry['name']} ({name})"
        return name

    def reference(self) -> str:
        """What is paid for, by the references of the business key: ``invoice 4711``."""
        tool = self.tool
        if tool is None:
            return ""
        values = {**{a: v for a, v in self.body["args"].items() if type(v) is not dict}, **self.hidden}
        named = [name for name in tool.once_per if name != "payee" and name in values]
        if not named:
            named = [arg.alias for arg in tool.args if arg.class_ == "reference" and arg.alias in values]
        return ", ".join(f"{name.replace('_', ' ')} {words.safe(values[name])}" for name in named)

    def amount(self) -> str:
        terms = self.body["terms"]
        return "" if terms["amount"] is None else words.money(terms["amount"], terms["currency"])

    def deal(self) -> str:
        """The action in a few words: ``9,900.00 EUR to Acme Paper GmbH (acme-paper), invoice 4711``."""
        payee = self.body["terms"]["payee"]
        parts = [self.amount() or self.body["tool"]]
        if payee is not None:
            parts[0] += f" to {self.payee(payee)}"
        return ", ".join([*parts, *filter(None, [self.reference()])])

    def subject(self) -> str:
        """What the headline is about."""
        return self.reference() or self.amount() or str(self.body["tool"])
