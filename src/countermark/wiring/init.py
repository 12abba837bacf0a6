"""``countermark init``: make a deployment from a template: keys, policy, journal, first activation, first mandates."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.authority import activate, generate, grant, load_private, public_of, save_private
from countermark.connectors import origin_of
from countermark.journal import SqliteStore, Vault
from countermark.log import LogSigner
from countermark.model.clock import US, SystemClock
from countermark.model.errors import ConfigError, PolicyError
from countermark.model.ports import Clock, Connector
from countermark.policy import Bundle, compile_bundle, load_sources, template_files, template_people, with_keys
from countermark.wiring.config import DEPLOYMENT, FILE, load_config
from countermark.wiring.connectors import STRIPE_ORIGIN, STRIPE_REFERENCE, drafts
from countermark.wiring.deployment import Deployment, open_deployment
from countermark.wiring.log_keys import make_second

MANDATE_DAYS = 90
# A local chain and the first of the accounts that it gives to everybody; both to be replaced.
EVM_SECTION = """
[connector.evm]
kind = "evm"

[connector.evm.chains.43112]
rpc = "http://127.0.0.1:8545"
final = "accepted"

[connector.evm.accounts]
"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266" = "env:EVM_PAYER_KEY"
"""


@dataclass(frozen=True, slots=True)
class Made:
    """What ``init`` made. ``people`` maps a person to the key file that belongs on that person's machine."""

    root: Path
    deployment: str
    people: Mapping[str, Path]
    log_key: str
    bundle: str
    mandates: Mapping[str, str]


def write_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Create a file that must not exist yet, fsynced."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def init_deployment(
    root: Path, template: str = "vendor-payments", deployment: str | None = None, *,
    stripe_origin: str | None = None, edit: Mapping[str, str] | None = None, clock: Clock | None = None,
    connectors: Mapping[str, Connector] | None = None, policy: Mapping[str, str] | None = None,
) -> Made:  # fmt: skip
    """Make a deployment in ``root``, which must be empty or absent.

    ``stripe_origin`` points policy and configuration at a simulator; ``edit`` replaces whole policy files, ``policy``
    all of the template's. Raises ``CountermarkError``.
    """
    files = {**(template_files(template) if policy is None else policy), **(edit or {})}
    origin = STRIPE_ORIGIN if stripe_origin is None else origin_of(stripe_origin)
    files = {path: text.replace(STRIPE_ORIGIN, origin) for path, text in files.items()}
    title = deployment or f"{template}-{secrets.token_hex(3)}"
    if DEPLOYMENT.fullmatch(title) is None:
        raise ConfigError("a deployment's name is 1 to 40 of a-z 0-9 -", hint="It stands in every record and key.")
    section = f'\n[connector.stripe]\nsecret = "{STRIPE_REFERENCE}"\norigin = "{origin}"\n'
    if "stripe." not in files.get("tools.toml", ""):
        section = ""
        if stripe_origin is not None:
            raise ConfigError(f"the template {template} does not use Stripe", hint="Leave --stripe-origin out.")
    if 'connector = "evm"' in files.get("tools.toml", ""):
        section += EVM_SECTION
    if policy is not None:  # not ours, so it may be wrong: nothing is made before that is known
        _check(files)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise ConfigError(f"{root} is not empty", hint="Choose a new directory.")
        for folder in ("policy", "keys", "data", "highwater", "people"):
            (root / folder).mkdir(mode=0o700)
        write_file(root / FILE, f'version = 1\ndeployment = "{title}"\nlane = "l0"\n{section}')
        people = {person: root / "people" / f"{person}.pem" for person in template_people(files)}
        for path in people.values():
            save_private(path, generate())
        keys = {person: str(public_of(load_private(path))) for person, path in people.items()}
        for name, text in sorted(with_keys(files, keys).items()):
            target = root / "policy" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, text, 0o644)
        config = load_config(root)
        bundle = compile_bundle(load_sources(config.policy), drafts())
        signer = LogSigner(config.origin, _new_keys(config.keys))
        Vault(config.vault, bytes.fromhex((config.keys / "vault.key").read_text()), create=True).close()
        SqliteStore(config.journal, create=True).close()
    except OSError as error:
        raise ConfigError(f"{root} cannot be set up: {error.strerror}") from None
    clock = clock or SystemClock()
    with open_deployment(root, clock=clock, connectors=connectors) as handle:
        _activate(handle, bundle, people)
        mandates = {agent: _mandate(handle, bundle, agent, people, clock) for agent in sorted(bundle.compiled.agents)}
    return Made(root, title, people, signer.vkey, bundle.digest, mandates)


def _check(files: Mapping[str, str]) -> None:
    """Raises ``PolicyError`` when the files make no policy, whoever's keys will stand in them."""
    keys = {person: str(public_of(generate())) for person in template_people(files)}
    try:
        compile_bundle(tuple(sorted(with_keys(files, keys).items())), drafts())
    except PolicyError as error:
        raise PolicyError(error.message, code=error.code, hint="Nothing was made.") from None


def _new_keys(folder: Path) -> Any:
    save_private(folder / "log.pem", generate())
    make_second(folder)
    for name in ("pseudonym.key", "vault.key"):
        write_file(folder / name, secrets.token_hex(32) + "\n")
    return load_private(folder / "log.pem")


def _principal(bundle: Bundle, people: Mapping[str, Path]) -> str:
    found = sorted(p.id for p in bundle.compiled.people.values() if "principal" in p.roles and p.id in people)
    if not found:
        raise ConfigError("the template has no principal with a new key")
    return found[0]


def _activate(handle: Deployment, bundle: Bundle, people: Mapping[str, Path]) -> None:
    person = _principal(bundle, people)
    order = {
        "deployment": handle.config.deployment, "bundle": bundle.digest, "previous": None,
        "author": bundle.compiled.author, "activator": person,
    }  # fmt: skip
    handle.call("activate", {**activate(order, load_private(people[person])), "document": bundle.document})


def _mandate(handle: Deployment, bundle: Bundle, agent: str, people: Mapping[str, Path], clock: Clock) -> str:
    """The first mandate: every tool and payee of the policy, each payment within its hard limit."""
    person, now = _principal(bundle, people), clock.now_us()
    most = bundle.compiled.limits.get("payment_max")
    limits = [] if most is None else [
        {"currency": code, "amount": most, "over_us": 0} for code in bundle.compiled.currencies
    ]  # fmt: skip
    doc = mandate_document(
        handle.config.deployment, person, agent, not_before=now - US, not_after=now + MANDATE_DAYS * 86_400 * US,
        limits=limits, purpose="first mandate",
    )  # fmt: skip
    digest: str = handle.call("mandate.grant", grant(doc, load_private(people[person])))
    return digest


def mandate_document(
    deployment: str, principal: str, agent: str, *, not_before: int, not_after: int,
    limits: list[dict[str, Any]] | None = None, tools: list[str] | None = None, payees: list[str] | None = None,
    named: list[str] | None = None, parent: str | None = None, agent_key: str | None = None, purpose: str = "",
) -> dict[str, Any]:  # fmt: skip
    """A mandate's document with a fresh nonce, ready to be signed."""
    return {
        "v": 1, "deployment": deployment, "parent": parent, "principal": principal, "agent": agent,
        "agent_key": agent_key, "tools": tools or ["*"], "payees": payees or ["*"], "limits": limits or [],
        "named": named or [], "purpose": purpose, "not_before": not_before, "not_after": not_after,
        "nonce": secrets.token_hex(16),
    }  # fmt: skip
