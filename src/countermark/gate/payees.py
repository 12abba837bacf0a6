"""Lane messages about payees: a person's signed order, and what people who approve want to know about one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from countermark.authority import PayeeOrder, Person, verify_payee_order
from countermark.gate import escalation
from countermark.gate.bodies import PAGE_MAX
from countermark.gate.judging import people_of
from countermark.gate.lane import Lane, Rank
from countermark.gate.writer import Writer
from countermark.model.errors import AuthorityError, GateHaltedError
from countermark.policy import Alike, Known, alike

TRIES_MAX = 3


class Place(Protocol):
    """The gate that takes an order."""

    @property
    def deployment(self) -> str: ...


Aside = Callable[[Callable[[], Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Ready:
    """An order whose look-alikes were found among the payees of ``version``, and confirmed."""

    signed: Mapping[str, Any]
    version: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for people, with the account of each payee that nobody knows (None: known, or none)."""

    entries: list[dict[str, Any]]
    accounts: list[str | None]
    known: Known


async def order(lane: Lane, aside: Aside, body: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Take an order. Look-alikes are found beside the lane, and anew when the register changed meanwhile."""
    for _ in range(TRIES_MAX):
        people, known = await lane.ask(surroundings, rank=Rank.ORDER)
        ready: Ready = await aside(partial(read, body, people, known, place.deployment))
        changed: dict[str, Any] | None = await lane.ask(partial(change, ready=ready), rank=Rank.ORDER)
        if changed is not None:
            return changed
    raise GateHaltedError("the register of payees keeps changing", hint="Ask again.")


def surroundings(writer: Writer) -> tuple[Mapping[str, Person], Known]:
    """Who may order, and who is known."""
    return people_of(writer), writer.state.register.known


def read(body: Mapping[str, Any], people: Mapping[str, Person], known: Known, deployment: str) -> Ready:
    """Verify an order, and compare it with every payee: pure, and too slow for the lane or the loop.

    Raises:
        AuthorityError: ``payee_alike`` when the order is silent about a payee that could be taken for this one; else
            as ``verify_payee_order``.
    """
    order = verify_payee_order(body, deployment=deployment, people=people)
    unseen = [row for row in look_alikes(order, known) if row.payee not in order.alike]
    if unseen:
        said = ", ".join(f"{row.name} ({row.payee}, by its {row.because})" for row in unseen)
        raise AuthorityError(f"the payee could be taken for {said}"[:500], code="payee_alike",
                             hint="If they are different, sign with --confirm-alike.")  # fmt: skip
    return Ready(body, known.version)


def look_alikes(order: PayeeOrder, known: Known) -> list[Alike]:
    """Other payees with which this one could be confused; somebody who is only closed cannot be."""
    if not order.account:
        return []
    return alike(known.payees, name=order.name, account=order.account, but=order.payee)


def change(writer: Writer, ready: Ready) -> dict[str, Any] | None:
    """Record an order; None when the register is another one than it was compared with.

    Raises:
        AuthorityError: ``payee_expired``, ``payee_stopped``; what ``Register.check`` and ``verify_payee_order`` raise.
    """
    state = writer.state
    order = verify_payee_order(ready.signed, deployment=state.deployment, people=people_of(writer))
    if writer.at >= order.not_after:
        raise AuthorityError("the order's time is over", code="payee_expired", hint="Sign it anew.")
    state.register.check(order)
    if ready.version != state.register.known.version:
        return None
    before = "" if order.previous is None else order.previous.account
    now = _pseudonym(writer, order.account)
    if state.register.evades(order.payee, now, state.kills.values()):
        raise AuthorityError("a stop covers this account", code="payee_stopped", hint="Clear the stop first.")
    record = writer.add(
        "payee.changed",
        {**ready.signed, "was": _pseudonym(writer, before), "now": now},
        by=f"person:{order.person}",
    )
    return {"payee": order.payee, "record": record.digest, "seq": record.seq}


def _pseudonym(writer: Writer, account: str) -> str | None:
    return "p:" + writer.pseudonym("payee", account) if account else None


def listed(writer: Writer, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A page of the payees (``Register.listed``): ``limit`` behind the id ``after``; an empty one is the end."""
    return writer.state.register.listed(body.get("after", ""), body.get("limit", PAGE_MAX))


def names(writer: Writer, body: Mapping[str, Any]) -> dict[str, str]:
    """Everybody who is known now, of the policy or of the register: id -> name."""
    return {name: payee.name for name, payee in writer.state.register.known.payees.items()}


def history(writer: Writer, body: Mapping[str, Any]) -> dict[str, Any]:
    """What an approval screen says about a payee (``Register.history``). Raises ``ArgumentError``."""
    return writer.state.register.history(body.get("payee", ""))


def waiting(writer: Writer, body: Mapping[str, Any]) -> Waiting:
    """What waits for people, as ``escalation.waiting`` lists it; ``with_alike`` makes the answer of it."""
    entries = escalation.waiting(writer, body)
    known = writer.state.register.known
    for entry in entries:
        payee = known.payees.get(entry["terms"]["payee"] or "")
        entry["payee_name"] = None if payee is None else payee.name
    wanted = body.get("alike", True)
    return Waiting(entries, [_account(writer, entry) if wanted else None for entry in entries], known)


def _account(writer: Writer, entry: Mapping[str, Any]) -> str | None:
    if not (entry["terms"]["payee"] or "").startswith("p:") or entry["values"] is None:
        return None
    argument = writer.bundle(entry["bundle"]).compiled.tools[entry["tool"]].one("payee")
    return None if argument is None else str(entry["values"].get(argument.alias, ""))


def with_alike(found: Waiting) -> list[dict[str, Any]]:
    """Each entry with ``alike``: the payees with which an account that nobody knows could be confused."""
    return [
        {**entry, "alike": [row.document() for row in alike(found.known.payees, account=account)] if account else []}
        for entry, account in zip(found.entries, found.accounts, strict=True)
    ]
