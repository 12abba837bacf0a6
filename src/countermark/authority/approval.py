"""Approvals: a person's signed answer to an escalation, bound to exactly what was asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
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
RUNG_MAX = 1  # a ladder has one rung in this version

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
    """An approval's document, checked. ``not_after`` is microseconds UTC.

    ``reference`` is the digest of what stood behind the payee when people were asked, None for a tool that reads no
    such thing.
    """

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
    reference: str | None = None

    def document(self) -> dict[str, Any]:
        """The canonical document; ``parse_approval`` of it gives an equal approval."""
        return {
            "v": 1, "deployment": self.deployment, "escalation": self.escalation, "ladder": self.ladder,
            "ids": list(self.ids), "rung": self.rung, "verdict": self.verdict, "person": self.person,
            "action": self.action, "request": self.request, "bundle": self.bundle, "mandate": self.mandate,
            "terms": self.terms.document(), "not_after": self.not_after,
            **({} if self.reference is None else {"reference": self.reference}),
        }  # fmt: skip


def build_approval(
    escalation_doc: Mapping[str, Any], *, deployment: str, ladder: str, verdict: Verdict, person: str
) -> dict[str, Any]:
    """The document that a person signs to answer an escalation.

    Args:
        escalation_doc: body of the ``escalation.raised`` record; all that binds the answer is copied from it.

    Raises:
        AuthorityError: ``approval_mismatch`` when the escalation does not ask that ladder; ``bad_approval``.
    """
    bound = {name: escalation_doc[name] for name in _BOUND}
    ids = escalation_doc["ladders"].get(ladder)
    if ids is None:
        raise AuthorityError("the escalation does not ask that ladder", code="approval_mismatch")
    if escalation_doc.get("reference") is not None:
        bound["reference"] = escalation_doc["reference"]["digest"]
    document = {"v": 1, "deployment": deployment, "ladder": ladder, "ids": list(ids), "rung": 1, "verdict": verdict,
                "person": person, **bound}  # fmt: skip
    return parse_approval(document).document()


def parse_approval(value: object) -> Approval:
    """Check an approval's document strictly. Raises ``AuthorityError`` (``bad_approval``)."""
    more = {"reference"} if isinstance(value, Mapping) and "reference" in value else set()
    fields = Fields("approval", value, _MEMBERS | more)
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
        reference=fields.string("reference", DIGEST) if more else None,
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
        AuthorityError: ``bad_approval``, ``approval_mismatch`` or ``not_authorised``.
        SignatureError: the key or the signature is wrong.
    """
    fields = Fields("approval", body, _BODY_MEMBERS)
    approval = parse_approval(fields.member("approval"))
    key = parse_key(fields.member("key"))
    verify(key, APPROVAL, approval.document(), fields.member("sig"))
    if approval.deployment != deployment:
        raise AuthorityError("the approval is for another deployment", code="approval_mismatch")
    enrolled(people, approval.person, key)
    return approval


def check_eligible(
    approval: Approval,
    ladder: Mapping[str, Any],
    people: Mapping[str, Person],
    agent_owner: str,
    author: str,
    now_us: int,
    escalation_doc: Mapping[str, Any],
    answered: Collection[str] = (),
    setter: str | None = None,
) -> Person:
    """Whether this person may give this answer now; ``verify_approval`` comes first.

    Args:
        ladder: the bundle's ladder that the approval names.
        agent_owner: owner of the agent that asked.
        author: author of the bundle in force.
        escalation_doc: body of the ``escalation.raised`` record.
        answered: people who have answered this escalation before, on any ladder.
        setter: who set the account that is paid, if a person's order did.

    Returns:
        The person, whose answer counts.

    Raises:
        AuthorityError: ``approval_mismatch``, ``approval_expired``, ``approval_not_eligible``,
            ``approval_same_person`` or ``approval_payee_setter``; the first that applies, in this order.
    """
    document = approval.document()
    behind = escalation_doc.get("reference")
    same = all(document[name] == escalation_doc[name] for name in _BOUND) and approval.reference == (
        None if behind is None else behind["digest"]
    )
    asked = tuple(escalation_doc["ladders"].get(approval.ladder, ()))
    if not same or approval.ladder != ladder["id"] or approval.ids != asked:
        raise AuthorityError("the approval is not about exactly what the escalation asks", code="approval_mismatch")
    if now_us >= approval.not_after:
        raise AuthorityError("the escalation's deadline has passed", code="approval_expired")
    person = people.get(approval.person)
    if person is None or person.roles.isdisjoint(ladder["roles"]):
        raise AuthorityError("the person has no role of this ladder", code="approval_not_eligible")
    if person.id in (agent_owner, author):
        raise AuthorityError("the agent's owner and the policy's author do not answer", code="approval_same_person")
    if person.id in answered:
        raise AuthorityError("the person has answered this escalation before", code="approval_same_person")
    if person.id == setter:
        raise AuthorityError("whoever set the payee's present account does not answer for a payment to it",
                             code="approval_payee_setter", hint="Somebody else of the ladder answers.")  # fmt: skip
    return person
