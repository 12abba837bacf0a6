"""Approvals: a person's signed answer to an escalation, bound to exactly what was asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import CURRENCY, DIGEST, PAYEE, POLICY_ID, Fields
from countermark.authority.keys import parse_key, public_of, sign, verify
from countermark.authority.people import Person, enrolled
from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.digest import APPROVAL
from countermark.model.errors import AuthorityError

Verdict = Literal["approve", "refuse"]

IDS_MAX = 256
RUNG_MAX = 8

_ESCALATION = re.compile(r"esc_[0-9a-f]{32}")
_VERDICT = re.compile(r"approve|refuse")
_PAYEE = re.compile(rf"(?:{PAYEE.pattern})|p:[0-9a-f]{{32}}")
_MEMBERS = frozenset(
    ("v", "deployment", "escalation", "ladder", "ids", "rung", "verdict", "person", "action", "request", "bundle",
     "mandate", "terms", "not_after")
)  # fmt: skip
_TERMS_MEMBERS = frozenset(("amount", "currency", "payee"))
_BODY_MEMBERS = frozenset(("approval", "key", "sig"))
_BOUND = ("escalation", "action", "request", "bundle", "mandate", "terms", "not_after")

NOBODY: Mapping[str, Collection[str]] = MappingProxyType({})  # nobody stands in for anybody


@dataclass(frozen=True, slots=True)
class Terms:
    """What the answer is about, in words: minor units, currency, payee id or pseudonym; each may be absent."""

    amount: int | None
    currency: str | None
    payee: str | None

    def document(self) -> dict[str, Any]:
        return {"amount": self.amount, "currency": self.currency, "payee": self.payee}


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval's document, checked. ``not_after`` is microseconds UTC."""

    deployment: str
    escalation: str
    ladder: str
    ids: tuple[str, ...]
    rung: int
    verdict: Verdict
    person: str
    action: str
    request: str
    bundle: str
    mandate: str
    terms: Terms
    not_after: int

    def document(self) -> dict[str, Any]:
        """The canonical document; ``parse_approval`` of it gives an equal approval."""
        return {
            "v": 1, "deployment": self.deployment, "escalation": self.escalation, "ladder": self.ladder,
            "ids": list(self.ids), "rung": self.rung, "verdict": self.verdict, "person": self.person,
            "action": self.action, "request": self.request, "bundle": self.bundle, "mandate": self.mandate,
            "terms": self.terms.document(), "not_after": self.not_after,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom a ladder asks now: its present rung (from 1), until when, and when the whole question ends; microseconds."""

    id: str
    rung: int
    roles: frozenset[str]
    until: int
    ends: int


def build_approval(
    escalation_doc: Mapping[str, Any],
    *,
    deployment: str,
    ladder: str,
    verdict: Verdict,
    person: str,
    rung: int | None = None,
) -> dict[str, Any]:
    """The document that a person signs to answer an escalation.

    Args:
        escalation_doc: body of the ``escalation.raised`` record, or an entry of the gate's list of what waits, which
            says the present rung as well; all that binds the answer is copied from it.
        rung: the ladder's present rung; by default what the entry says, else the first.

    Raises:
        AuthorityError: ``approval_ladder`` when the escalation does not ask that ladder; ``bad_approval``.
    """
    ids = escalation_doc["ladders"].get(ladder)
    if ids is None:
        raise AuthorityError("the escalation does not ask that ladder", code="approval_ladder")
    if rung is None:
        rung = escalation_doc.get("rungs", {}).get(ladder, {}).get("rung", 1)
    document = {"v": 1, "deployment": deployment, "ladder": ladder, "ids": list(ids), "rung": rung,
                "verdict": verdict, "person": person, **{name: escalation_doc[name] for name in _BOUND}}  # fmt: skip
    return parse_approval(document).document()


def parse_approval(value: object) -> Approval:
    """Check an approval's document strictly. Raises ``AuthorityError`` (``bad_approval``)."""
    fields = Fields("approval", value, _MEMBERS)
    fields.version()
    return Approval(
        deployment=fields.string("deployment"),
        escalation=fields.string("escalation", _ESCALATION),
        ladder=fields.string("ladder"),
        ids=fields.strings("ids", POLICY_ID, IDS_MAX, 1),
        rung=fields.integer("rung", 1, RUNG_MAX),
        verdict=cast(Verdict, fields.string("verdict", _VERDICT)),
        person=fields.string("person"),
        action=fields.string("action", DIGEST),
        request=fields.string("request", DIGEST),
        bundle=fields.string("bundle", DIGEST),
        mandate=fields.string("mandate", DIGEST),
        terms=_terms(fields.member("terms")),
        not_after=fields.integer("not_after"),
    )


def _terms(value: object) -> Terms:
    fields = Fields("approval", value, _TERMS_MEMBERS)
    amount = None if fields.member("amount") is None else fields.integer("amount", 0, INTEGER_ABS_MAX)
    return Terms(amount, fields.optional("currency", CURRENCY), fields.optional("payee", _PAYEE))


def sign_approval(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign an approval: ``{"approval", "key", "sig"}``. The document is checked first."""
    plain = parse_approval(document).document()
    return {"approval": plain, "key": str(public_of(private)), "sig": sign(private, APPROVAL, plain)}


def verify_approval(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Approval:
    """Check a signed approval: form, signature, deployment, and that the key is the one enrolled for the person.

    Raises:
        AuthorityError: ``bad_approval``, ``approval_deployment`` or ``not_authorised``.
        SignatureError: the key or the signature is wrong.
    """
    fields = Fields("approval", body, _BODY_MEMBERS)
    approval = parse_approval(fields.member("approval"))
    key = parse_key(fields.member("key"))
    verify(key, APPROVAL, approval.document(), fields.member("sig"))
    if approval.deployment != deployment:
        raise AuthorityError("the approval is for another deployment", code="approval_deployment")
    enrolled(people, approval.person, key)
    return approval


def place_of(
    person: Person, roles: Collection[str], people: Mapping[str, Person], stands_in: Mapping[str, Collection[str]]
) -> str | None:
    """Whose place in a quorum an answer of ``person`` takes: their own, else that of the first for whom they stand in.

    ``stands_in`` maps a person to those for whom they answer now; a place needs a role of ``roles``. None: no place.
    """
    for name in (person.id, *sorted(stands_in.get(person.id, ()))):
        holder = people.get(name)
        if holder is not None and not holder.roles.isdisjoint(roles):
            return name
    return None


def eligible(
    asked: Asked,
    people: Mapping[str, Person],
    barred: Collection[str],
    answered: Mapping[str, str],
    stands_in: Mapping[str, Collection[str]] = NOBODY,
) -> list[str]:
    """Ids of those who may answer a rung now, sorted: what ``check_eligible`` says of each, for a list of people."""
    return sorted(
        name
        for name, person in people.items()
        if person.keys and _refused(person, asked, people, barred, answered, stands_in)[0] is None
    )  # fmt: skip


def _refused(
    person: Person | None, asked: Asked, people: Mapping[str, Person], barred: Collection[str],
    answered: Mapping[str, str], stands_in: Mapping[str, Collection[str]],
) -> tuple[AuthorityError | None, str]:  # fmt: skip
    """Why this person may not answer, and else whose place the answer takes."""
    place = None if person is None else place_of(person, asked.roles, people, stands_in)
    if person is None or place is None:
        return AuthorityError("the person has no role of this rung", code="approval_not_eligible"), ""
    code = "approval_same_person"
    if person.id in barred or place in barred:
        return AuthorityError("who owns an agent behind this, or wrote the policy, does not answer", code=code), ""
    if person.id in answered or place in answered.values():
        return AuthorityError("the person, or who stands in for them, has answered this before", code=code), ""
    return None, place


def check_eligible(
    approval: Approval,
    asked: Asked,
    people: Mapping[str, Person],
    barred: Collection[str],
    now_us: int,
    escalation_doc: Mapping[str, Any],
    answered: Mapping[str, str] = MappingProxyType({}),
    stands_in: Mapping[str, Collection[str]] = NOBODY,
) -> str:
    """Whether this person may give this answer now; ``verify_approval`` comes first.

    Args:
        asked: the present rung of the ladder that the approval names, by the bundle in force.
        barred: the author of the bundle in force, and the owners of the agents behind the action.
        escalation_doc: body of the ``escalation.raised`` record.
        answered: people whose approval counts for this escalation, on any ladder, each with whose place it takes.
        stands_in: a person -> those for whom they answer now.

    Returns:
        Whose place in the quorum the answer takes: the person's own, or that of somebody for whom they stand in.

    Raises:
        AuthorityError: ``approval_ladder``, ``approval_mismatch``, ``approval_expired``, ``approval_rung``,
            ``approval_not_eligible`` or ``approval_same_person``; the first that applies, in this order.
    """
    document = approval.document()
    if approval.ladder != asked.id or approval.ids != tuple(escalation_doc["ladders"].get(approval.ladder, ())):
        raise AuthorityError("the approval is not for what this ladder is asked", code="approval_ladder")
    if any(document[name] != escalation_doc[name] for name in _BOUND):
        raise AuthorityError("the approval is not about exactly what the escalation asks", code="approval_mismatch")
    if now_us >= min(approval.not_after, asked.ends):
        raise AuthorityError("the escalation's deadline has passed", code="approval_expired")
    if approval.rung != asked.rung or now_us >= asked.until:
        raise AuthorityError("the approval is for a rung that is not asked now", code="approval_rung",
                             hint="Look at what waits again: others are asked by now.")  # fmt: skip
    refusal, place = _refused(
        people.get(approval.person), asked, people, barred, answered, stands_in
    )  # fmt: skip
    if refusal is not None:
        raise refusal
    return place
