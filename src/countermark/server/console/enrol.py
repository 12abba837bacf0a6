"""Making a passkey and offering it: nobody is signed in yet, and nothing here enrols anybody.

The page makes the passkey, the passkey signs the enrolment's document, and the server keeps that offer for a while
under a code. Somebody who may enrol compares the fingerprint and signs on their own machine.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from countermark.authority import Passkey, decode64, encode64, fingerprint, parse_enrolment, parse_key
from countermark.model.canon import canon, read_json
from countermark.model.digest import ENROLMENT_PROOF
from countermark.model.errors import AuthorityError, SignatureError
from countermark.model.values import NAME
from countermark.server.console import signing
from countermark.server.console.login import open_door
from countermark.server.console.visit import Page, Reply, Visit
from countermark.server.console.words import plain

SPKI_BYTES_MAX = 512
DRAFT_BYTES_MAX = 4_096
LABEL_CHARS_MAX = 64


async def enrol(visit: Visit) -> Reply:
    """``GET /enrol``: asks who it is, and makes the passkey."""
    open_door(visit)
    console = visit.console.origin(visit.bundle)
    known = "" if visit.person is None else visit.person.id
    return visit.html("enrol.html", here=visit.origin == console, home=console, known=known, rp_id=_host(visit))


async def made(visit: Visit) -> Reply:
    """``POST /enrol/key``: the browser made a passkey; now it signs what would be enrolled."""
    person = visit.form.get("person", "").strip()
    if NAME.fullmatch(person) is None:
        raise AuthorityError("this cannot be anybody's id", code="bad_enrolment",
                             hint="As the policy writes it: letters, digits, dots, dashes, at most 64.")  # fmt: skip
    label = plain(visit.form.get("label", ""), LABEL_CHARS_MAX)
    key = _passkey(visit)
    document = visit.console.all.offers.draft(person, str(key), label)
    asked = signing.Challenge.of(ENROLMENT_PROOF, document, _host(visit), [key.credential])
    return visit.html("enrol_sign.html", asked=asked, person=person, draft=canon(document).decode("utf-8"),
                      fingerprint=fingerprint(str(key)))  # fmt: skip


async def offered(visit: Visit) -> Reply:
    """``POST /enrol/offer``: the passkey signed. The offer waits under its code."""
    draft = visit.form.get("draft", "").encode("utf-8")
    enrolment = parse_enrolment(read_json(draft, bytes_max=DRAFT_BYTES_MAX))
    key = parse_key(enrolment.key)
    if not isinstance(key, Passkey) or key.origin != visit.origin:
        raise AuthorityError("this page enrols passkeys of this page", code="bad_enrolment", hint="Begin again.")
    body = signing.signed("enrolment", ENROLMENT_PROOF, enrolment.document(), [key], visit.form)
    offer = visit.console.all.offers.add(body["enrolment"], body["sig"])
    visit.console.all.counters.add("console_offers")
    return visit.html("enrol_done.html", offer=offer, fingerprint=fingerprint(enrolment.key))


def _host(visit: Visit) -> str:
    return urlsplit(visit.origin).hostname or ""


def _passkey(visit: Visit) -> Passkey:
    """The passkey that the browser made, from the key as it stands in a certificate. Raises ``SignatureError``."""
    spki = decode64(visit.form.get("public", ""), SPKI_BYTES_MAX)
    try:
        public = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        raise SignatureError("the passkey is not of the one kind that is taken here (ES256)", code="bad_key")
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Passkey.parse(f"webauthn:es256:{encode64(decode64(visit.form.get('credential', ''), 255))}:"
                         f"{encode64(point)}:{visit.origin}")  # fmt: skip


PAGES = (
    Page("/enrol", enrol, needs=None),
    Page("/enrol/key", made, "POST", None, form=("person", "label", "credential", "public")),
    Page("/enrol/offer", offered, "POST", None, form=("draft", *signing.FIELDS)),
)
