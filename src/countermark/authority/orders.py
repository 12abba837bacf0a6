"""A person's other signed orders: activating a bundle, revoking a mandate, clearing a kill, accepting a restore."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority.fields import DIGEST, Fields
from countermark.authority.hindsight import Eyes, check_four_eyes, one_of_two, signer_of_two
from countermark.authority.keys import parse_key, public_of, sign, verify
from countermark.authority.people import Person, enrolled
from countermark.model.digest import ACCEPTANCE, ACTIVATION, CLEARANCE, REVOCATION
from countermark.model.errors import AuthorityError

_KILL = re.compile(r"kill_[0-9a-f]{16}")
_KILL_HINT = (
    "It is the name that the stop was given: kill_ and 16 hex digits. `countermark status` shows those that stand."
)
_LANE = re.compile(r"l(?:0|[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Activation:
    """Puts ``bundle`` in force. ``previous`` is the digest of the record of the activation before, None at first."""

    deployment: str
    bundle: str
    previous: str | None
    author: str
    activator: str

    @property
    def person(self) -> str:
        return self.activator

    def document(self) -> dict[str, Any]:
        return {"deployment": self.deployment, "bundle": self.bundle, "previous": self.previous,
                "author": self.author, "activator": self.activator}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Revocation:
    """Ends a mandate and all below it."""

    deployment: str
    mandate: str
    person: str
    reason: str

    def document(self) -> dict[str, Any]:
        return {"deployment": self.deployment, "mandate": self.mandate, "person": self.person, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Clearance:
    """Clears a kill."""

    deployment: str
    kill: str
    person: str
    reason: str

    def document(self) -> dict[str, Any]:
        return {"deployment": self.deployment, "kill": self.kill, "person": self.person, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Opens a successor lane after a restore, together with a second person's.

    ``succession`` is the digest of its ``lane.succeeded`` record, ``imported`` how many movements of the provider
    follow it, ``bundle`` the policy under which it will decide.
    """

    deployment: str
    lane: str
    succession: str
    imported: int
    bundle: str
    person: str

    def document(self) -> dict[str, Any]:
        return {"deployment": self.deployment, "lane": self.lane, "succession": self.succession,
                "imported": self.imported, "bundle": self.bundle, "person": self.person}  # fmt: skip


Order = TypeVar("Order", Activation, Revocation, Clearance, Acceptance)


def parse_activation(value: object) -> Activation:
    """Check an activation's document strictly. Raises ``AuthorityError`` (``bad_activation``)."""
    fields = Fields("activation", value, frozenset(("deployment", "bundle", "previous", "author", "activator")))
    return Activation(
        fields.string("deployment"), fields.string("bundle", DIGEST), fields.optional("previous", DIGEST),
        fields.string("author"), fields.string("activator"),
    )  # fmt: skip


def parse_revocation(value: object) -> Revocation:
    """Check a revocation's document strictly. Raises ``AuthorityError`` (``bad_revocation``)."""
    fields = Fields("revocation", value, frozenset(("deployment", "mandate", "person", "reason")))
    return Revocation(
        fields.string("deployment"), fields.string("mandate", DIGEST), fields.string("person"), fields.text("reason")
    )


def parse_clearance(value: object) -> Clearance:
    """Check a clearance's document strictly. Raises ``AuthorityError`` (``bad_clearance``)."""
    fields = Fields("clearance", value, frozenset(("deployment", "kill", "person", "reason")))
    return Clearance(
        fields.string("deployment"),
        fields.string("kill", _KILL, _KILL_HINT),
        fields.string("person"),
        fields.text("reason"),
    )


def parse_acceptance(value: object) -> Acceptance:
    """Check an acceptance's document strictly. Raises ``AuthorityError`` (``bad_acceptance``)."""
    names = ("deployment", "lane", "succession", "imported", "bundle", "person")
    fields = Fields("acceptance", value, frozenset(names))
    return Acceptance(
        fields.string("deployment"), fields.string("lane", _LANE), fields.string("succession", DIGEST),
        fields.integer("imported"), fields.string("bundle", DIGEST), fields.string("person"),
    )  # fmt: skip


def activate(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign an activation: the body of a ``policy.activated`` record."""
    return _signed("activation", ACTIVATION, parse_activation(document), private)


def revoke(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign a revocation: the body of a ``mandate.revoked`` record."""
    return _signed("revocation", REVOCATION, parse_revocation(document), private)


def clear(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign a clearance: the body of a ``kill.cleared`` record."""
    return _signed("clearance", CLEARANCE, parse_clearance(document), private)


def accept(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Sign an acceptance: the body of a ``lane.accepted`` record."""
    return _signed("acceptance", ACCEPTANCE, parse_acceptance(document), private)


def _signed(
    name: str, domain: str, order: Activation | Revocation | Clearance | Acceptance, private: Ed25519PrivateKey
) -> dict[str, Any]:
    plain = order.document()
    return {name: plain, "key": str(public_of(private)), "sig": sign(private, domain, plain)}


def verify_activation(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Activation:
    """Check a signed activation against the people of the bundle that judges it: for the first bundle, its own.

    Raises:
        AuthorityError: ``bad_activation``, or ``not_authorised`` for another deployment's or person's order.
        SignatureError: the key or the signature is wrong.
    """
    second = ("second",) if "second" in body else ()
    fields = Fields("activation", body, frozenset(("activation", "key", "sig", *second)))
    order = parse_activation(fields.member("activation"))
    return _checked(fields, ACTIVATION, order, deployment, people)


def countersign(document: Mapping[str, Any], person: str, private: Ed25519PrivateKey) -> dict[str, str]:
    """The second person's signature of an activation: its member ``second``, ``{"person", "key", "sig"}``."""
    return one_of_two(ACTIVATION, parse_activation(document).document(), person, private)


def verify_second(body: Mapping[str, Any], order: Activation, eyes: Eyes) -> None:
    """Check that two people signed an activation, of whom one is independent.

    ``eyes`` are those of the policy that judges. Independent is not who wrote the policy that is signed.

    Raises:
        AuthorityError: ``four_eyes``, ``bad_activation`` or ``not_authorised``.
        SignatureError: the key or the signature is wrong.
    """
    if "second" not in body:
        raise AuthorityError("two different people sign a policy that only monitors", code="four_eyes",
                             hint="Sign with --out FILE, then somebody else with --second FILE.")  # fmt: skip
    second = signer_of_two("activation", ACTIVATION, order.document(), body["second"], eyes)
    check_four_eyes((eyes.people[order.activator], second), replace(eyes, author=order.author))


def verify_revocation(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Revocation:
    """Check a signed revocation; raises as ``verify_activation`` does. Anybody enrolled may take authority away."""
    fields = Fields("revocation", body, frozenset(("revocation", "key", "sig")))
    order = parse_revocation(fields.member("revocation"))
    return _checked(fields, REVOCATION, order, deployment, people)


def verify_clearance(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Clearance:
    """Check a signed clearance; raises as ``verify_activation`` does."""
    fields = Fields("clearance", body, frozenset(("clearance", "key", "sig")))
    order = parse_clearance(fields.member("clearance"))
    return _checked(fields, CLEARANCE, order, deployment, people)


def verify_acceptance(body: Mapping[str, Any], *, deployment: str, people: Mapping[str, Person]) -> Acceptance:
    """Check a signed acceptance; raises as ``verify_activation`` does."""
    fields = Fields("acceptance", body, frozenset(("acceptance", "key", "sig")))
    order = parse_acceptance(fields.member("acceptance"))
    return _checked(fields, ACCEPTANCE, order, deployment, people)


def _checked(fields: Fields, domain: str, order: Order, deployment: str, people: Mapping[str, Person]) -> Order:
    key = parse_key(fields.member("key"))
    verify(key, domain, order.document(), fields.member("sig"))
    if order.deployment != deployment:
        raise AuthorityError(f"the {fields.kind} is for another deployment")
    enrolled(people, order.person, key)
    return order
