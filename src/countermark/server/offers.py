"""Passkeys that a page offers for enrolment: kept in memory for half an hour, known by a code that is read aloud.

An offer changes nothing. It holds the document of an enrolment and the passkey's proof over it; people who may enrol
fetch it by its code, compare the fingerprint, and sign that very document.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.authority import Enrolment, check_possession, fingerprint, parse_enrolment
from countermark.model.clock import US
from countermark.model.errors import AuthorityError, GateBusyError
from countermark.model.ports import Clock

OFFERS_MAX = 64
OFFER_S_MAX = 30 * 60
ENROL_S = 24 * 3_600  # from the draft to the record: a second person may sign the next morning
CODE = re.compile(r"[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}")

_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: nothing in it is taken for something else


@dataclass(frozen=True, slots=True)
class Offer:
    """What a page offered. ``until``: microseconds, when it is forgotten."""

    code: str
    enrolment: Enrolment
    proof: Mapping[str, Any]
    until: int

    def document(self) -> dict[str, Any]:
        """As people fetch it: everything that an enrolment needs but the signatures."""
        return {
            "code": self.code, "enrolment": self.enrolment.document(), "proof": dict(self.proof),
            "fingerprint": fingerprint(self.enrolment.key), "until": self.until,
        }  # fmt: skip


class Offers:
    """The offers of one server. A stranger may fill it, and nothing else: then keys are offered later, or by file."""

    def __init__(self, deployment: str, clock: Clock) -> None:
        self._deployment = deployment
        self._clock = clock
        self._kept: dict[str, Offer] = {}

    def draft(self, person: str, key: str, label: str) -> dict[str, Any]:
        """The document that a page asks its new passkey to sign, once. Nothing is kept.

        The passkey signs under ``model.digest.ENROLMENT_PROOF``. Raises ``AuthorityError`` or ``SignatureError``.
        """
        document = {
            "v": 1, "deployment": self._deployment, "person": person, "key": key, "label": label,
            "nonce": secrets.token_hex(16), "not_after": self._clock.now_us() + ENROL_S * US,
        }  # fmt: skip
        return parse_enrolment(document).document()

    def add(self, document: object, proof: object) -> Offer:
        """Keep an offer, if the passkey signed it.

        Raises:
            AuthorityError: ``bad_enrolment``, or the draft is over or of another deployment.
            SignatureError: the proof is not the passkey's over this document.
            GateBusyError: too many wait already.
        """
        enrolment, now = parse_enrolment(document), self._clock.now_us()
        if enrolment.deployment != self._deployment:
            raise AuthorityError("the enrolment is for another deployment")
        if not now < enrolment.not_after <= now + ENROL_S * US:
            raise AuthorityError("the draft is over", code="enrolment_late", hint="Begin again.")
        if not isinstance(proof, Mapping):
            raise AuthorityError("a passkey is offered with its proof", code="bad_enrolment")
        check_possession(enrolment, dict(proof))
        self._forget(now)
        same = next((one for one in self._kept.values() if one.enrolment.key == enrolment.key), None)
        if same is not None:  # offered once more: the newest counts
            del self._kept[same.code]
        if len(self._kept) >= OFFERS_MAX:
            raise GateBusyError("too many passkeys wait to be enrolled", hint="Offer it again in half an hour.")
        offer = Offer(self._code(), enrolment, dict(proof), now + OFFER_S_MAX * US)
        self._kept[offer.code] = offer
        return offer

    def find(self, code: str) -> Offer | None:
        """The offer of a code, as people type it; None when there is none, or it is over."""
        self._forget(self._clock.now_us())
        plain = code.upper().replace("-", "").replace(" ", "")
        return self._kept.get(f"{plain[:4]}-{plain[4:]}")

    def _forget(self, now: int) -> None:
        self._kept = {code: one for code, one in self._kept.items() if one.until > now}

    def _code(self) -> str:
        while True:
            text = "".join(secrets.choice(_LETTERS) for _ in range(8))
            if f"{text[:4]}-{text[4:]}" not in self._kept:
                return f"{text[:4]}-{text[4:]}"
