"""Accepting AP2 payment mandates: verified, mapped, and each redeemed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.authority import (
    Ap2Source,
    Here,
    Mandate,
    Person,
    accept_ap2,
    check_principal,
    mandate_digest,
    parse_mandate,
)
from countermark.gate.writer import Writer
from countermark.model.errors import ArgumentError, AuthorityError


def accept(writer: Writer, body: Mapping[str, Any], people: Mapping[str, Person]) -> list[str]:
    """Record what an AP2 document becomes; returns the digests of the mandates, the parent first.

    ``body``: ``ap2``, the document's text, and ``source``, the policy's name for whose it is; absent when there is one.

    Raises:
        AuthorityError: as ``authority.accept_ap2``; ``already_redeemed`` for a document or a transaction that was
            accepted before.
        SignatureError: it is not signed by the keys that the policy has for the source.
    """
    source = _source(writer, body.get("source"))
    text = body.get("ap2")
    if type(text) is not str:
        raise ArgumentError("ap2 must be the text of a document", field="ap2")
    check_principal(people, source.principal)
    bundle = writer.state.bundle
    here = Here(writer.state.deployment, () if bundle is None else bundle.compiled.currencies, writer.at)
    accepted = accept_ap2(text, source, here, lambda name: _above(writer, name))
    if any(writer.state.keys.get("rd:" + name) is not None for one in accepted for name in one.redeems):
        raise AuthorityError("this AP2 mandate, or its transaction, was accepted before", code="already_redeemed",
                             hint="One redemption each: ask for a new mandate.")  # fmt: skip
    digests = []
    for one in accepted:
        document = one.mandate.document()
        digests.append(mandate_digest(document))
        writer.add(
            "mandate.accepted",
            {
                "source": source.id, "ap2": one.ap2, "mandate": document, "digest": digests[-1],
                "redeems": list(one.redeems),
            },
        )  # fmt: skip
    return digests


def _source(writer: Writer, name: object) -> Ap2Source:
    bundle = writer.state.bundle
    sources = {} if bundle is None else bundle.compiled.ap2
    found = next(iter(sources.values())) if name is None and len(sources) == 1 else sources.get(str(name))
    if found is None:
        known = ", ".join(sorted(sources)) or "none: add [ap2.NAME] to limits.toml"
        raise AuthorityError("the policy has no such source of AP2 mandates", code="unknown_source",
                             hint=f"Known: {known}.")  # fmt: skip
    return found


def _above(writer: Writer, name: str) -> Mandate | None:
    """What an open mandate became when it was accepted before."""
    seq = writer.state.keys.get("rd:" + name)
    return None if seq is None else parse_mandate(writer.record(seq).body["mandate"])
