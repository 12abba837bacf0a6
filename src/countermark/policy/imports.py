"""Obligations settled before the gate: from what a ledger says to the business key that the tool would take."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from countermark.model.digest import OBLIGATION, digest_of
from countermark.model.errors import ArgumentError
from countermark.model.tool import ToolSpec
from countermark.policy.bundle import Bundle
from countermark.policy.judgement import normal
from countermark.policy.register import Known

PAYEE = "payee"

_TEXT = re.compile(r"[!-~]*[a-z0-9][!-~]*")  # what is left of a key's text in its normal form
_PSEUDONYM = re.compile(r"p:[0-9a-f]{32}")


def _bad(message: str, field: str = "") -> ArgumentError:
    return ArgumentError(message, field=field, code="bad_import")


def _keyed(bundle: Bundle, tool: str) -> ToolSpec:
    found = bundle.compiled.tools.get(tool)
    if found is None:
        raise _bad(f"the policy in force has no tool {tool[:100]!r}", "tool")
    if not found.once_per:
        raise _bad(f"{tool} has no business key (once_per), so nothing of it can be taken", "tool")
    return found


def import_pairs(
    bundle: Bundle, tool: str, given: Mapping[str, str], pseudonym: Callable[[str, str], str],
    known: Known | None = None,
) -> list[list[str]]:  # fmt: skip
    """The pairs of the business key, from a payee (id or account) and the arguments by alias, as texts. ``known``
    are the payees of the moment, without it the bundle's.

    Raises:
        ArgumentError: ``bad_import``; ``field`` names what is missing, unknown or cannot stand in a key.
    """
    spec = _keyed(bundle, tool)
    unknown = given.keys() - set(spec.once_per)
    if unknown:
        raise _bad(f"{min(unknown)[:64]!r} is not part of the business key of {tool}", min(unknown)[:64])
    pairs: list[list[str]] = []
    for name in sorted(spec.once_per):
        text = given.get(name, "")
        if name == PAYEE:
            text = _payee(bundle, text, pseudonym, known)
        elif text or spec.by_alias[name].required:
            text = normal(text)
            if _TEXT.fullmatch(text) is None:
                raise _bad(f"{name} must be printable ASCII with a letter or a digit", name)
            text = "p:" + pseudonym("payee", text) if spec.by_alias[name].sensitive else text
        pairs.append([name, text])
    return pairs


def _payee(bundle: Bundle, text: str, pseudonym: Callable[[str, str], str], known: Known | None) -> str:
    compiled = bundle.compiled
    if not text:
        raise _bad("the payee is missing", PAYEE)
    if text in (compiled.payees if known is None else known.payees):
        return text
    return (compiled.payee_by_account if known is None else known.by_account).get(text) or "p:" + pseudonym(
        "payee", text
    )


def imported_obligation(
    bundle: Bundle, tool: str, pairs: Sequence[Sequence[str]], payees: Collection[str] | None = None
) -> str:
    """The obligation that an import's pairs name under this bundle. ``payees`` are those that are known, when they are
    not only the bundle's.

    Raises:
        ArgumentError: ``bad_import``: they are not the pairs of the tool's business key in their normal form.
    """
    spec = _keyed(bundle, tool)
    if [name for name, _ in pairs] != sorted(spec.once_per):
        raise _bad(f"the business key of {tool} is made of {', '.join(sorted(spec.once_per))}", "pairs")
    for name, text in pairs:
        if name == PAYEE:
            fits = (
                text in (bundle.compiled.payees if payees is None else payees) or _PSEUDONYM.fullmatch(text) is not None
            )
        elif not text:
            fits = not spec.by_alias[name].required
        elif spec.by_alias[name].sensitive:
            fits = _PSEUDONYM.fullmatch(text) is not None
        else:
            fits = _TEXT.fullmatch(text) is not None and normal(text) == text
        if not fits:
            raise _bad(f"{name} is not as it stands in a business key", name)
    return digest_of(OBLIGATION, [spec.once_scope or spec.name, [list(pair) for pair in pairs]])
