"""Lane messages about people: a key enrolled or removed, somebody away, and who signs for whom now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.authority import verify_absence, verify_enrolment, verify_removal
from countermark.gate.judging import people_of
from countermark.gate.writer import Writer
from countermark.model.errors import AuthorityError
from countermark.policy import check_free, check_left


def enrol(writer: Writer, body: Mapping[str, Any]) -> dict[str, Any]:
    """Record a key as one of a person's. It signs from the next record on.

    Raises:
        AuthorityError, SignatureError: the document, its signatures or its proof; the key is, or was, somebody's.
    """
    state, people = writer.state, people_of(writer)
    test = state.bundle is not None and state.bundle.compiled.test
    order = verify_enrolment(body, deployment=state.deployment, people=people, test=test, at_us=writer.at)
    check_free(state, order.person, order.key)
    record = writer.add("key.enrolled", {name: body[name] for name in ("enrolment", "signed", "proof")})
    return {"person": order.person, "key": order.key, "seq": record.seq}


def remove(writer: Writer, body: Mapping[str, Any]) -> dict[str, Any]:
    """End a key, for good: nothing that it signs counts in a later record."""
    order = verify_removal(body, deployment=writer.state.deployment, people=people_of(writer))
    check_left(writer.state, order.key)
    record = writer.add("key.removed", dict(body), by=f"person:{order.by}")
    return {"person": order.person, "key": order.key, "seq": record.seq}


def away(writer: Writer, body: Mapping[str, Any]) -> dict[str, Any]:
    """Record who answers for a person while they are away; it takes the place of what was said before."""
    order = verify_absence(body, deployment=writer.state.deployment, people=people_of(writer))
    if order.until <= writer.at and order.person not in writer.state.roll.absences:
        raise AuthorityError("the absence is over already", code="bad_absence")
    record = writer.add("absence.set", dict(body))
    return {"person": order.person, "stands_in": order.stands_in, "seq": record.seq}


def people(writer: Writer, _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everybody, with keys and absence, by id."""
    return writer.state.roll.listed()
