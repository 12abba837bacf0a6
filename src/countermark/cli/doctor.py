"""``doctor``: the deployment and the machine below it, and what to do about each thing that is wrong."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from countermark.cli import doctor_host
from countermark.cli.base import Here, as_json_option, bad, careful, emit, good, pass_here, reading, short
from countermark.model.errors import CountermarkError

if TYPE_CHECKING:
    from countermark.cli.base import Config

_PAINT = {"ok": good, "warning": careful, "wrong": bad}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. ``state`` is ``ok``, ``warning`` or ``wrong``."""

    name: str
    state: str
    message: str


@click.command()
@as_json_option
@pass_here
@click.pass_context
def doctor(ctx: click.Context, here: Here, as_json: bool) -> None:
    """Check files, keys, journal, policy, secrets, other users, clock, durable writes, room and backups.

    Exit 1 when something is wrong; warnings alone end with 0.
    """
    config = here.config()
    found = [check for name, look in CHECKS for check in _looked(name, look, config)]
    wrong = any(check.state == "wrong" for check in found)
    width = max(len(check.name) for check in found)
    lines = [f"{check.name:<{width}}  {_PAINT[check.state](f'{check.state:<7}')}  {check.message}" for check in found]
    document = {
        "ok": not wrong,
        "checks": [{"name": c.name, "state": c.state, "message": c.message} for c in found],
    }
    emit(document, lines, as_json=as_json)
    ctx.exit(1 if wrong else 0)


def _looked(name: str, look: Callable[[Config], Iterator[tuple[str, str]]], config: Config) -> list[Check]:
    """What a look found; one that cannot be made is wrong."""
    try:
        return [Check(name, state, message) for state, message in look(config)]
    except CountermarkError as error:
        return [Check(name, "wrong", f"{error.message}. {error.hint}".strip())]
    except OSError as error:
        return [Check(name, "wrong", f"{error.filename}: {error.strerror}")]


def _files(config: Config) -> Iterator[tuple[str, str]]:
    missing = [
        path.relative_to(config.root).as_posix()
        for path in (config.policy, config.keys, config.journal, config.vault, config.high_water.parent)
        if not path.exists()
    ]
    yield ("wrong", f"missing: {', '.join(missing)}") if missing else ("ok", "everything is in its place")
    open_to_others = [
        path.relative_to(config.root).as_posix()
        for path in (config.keys, config.journal.parent, *sorted(config.keys.glob("*")))
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if open_to_others:
        yield "wrong", f"others can read {', '.join(open_to_others)}. Run chmod go= on them."
    people = sorted(path.name for path in (config.root / "people").glob("*.pem"))
    if people:
        yield "warning", f"private keys of people lie here: {', '.join(people)}. Each belongs to its person alone."


def _keys(config: Config) -> Iterator[tuple[str, str]]:
    from countermark.audit import present_state
    from countermark.journal import Vault
    from countermark.wiring import deployment, log_signer

    signer = log_signer(config)
    deployment.read_key(config.keys / "pseudonym.key")
    Vault(config.vault, deployment.read_key(config.keys / "vault.key")).close()
    with reading(config) as store:
        if store.size():
            recorded = present_state(store).log_key
            if signer.holds(recorded) is None:
                yield "wrong", f"keys/log.pem is not the key of this log ({_key_name(recorded)})"
                return
            if recorded != signer.vkey:
                yield "ok", f"log key {_key_name(recorded)}, handed over; keys/log.pem goes with `keys retire`"
                return
    yield "ok", f"log key {_key_name(signer.vkey)}, vault and pseudonym keys"


def _key_name(vkey: str) -> str:
    """Name and ID of a verifier key, without the key itself, which may hold a + as well."""
    return " ".join(vkey.split("+", 2)[:2])


def _journal(config: Config) -> Iterator[tuple[str, str]]:
    """Chain, tree and newest signed head, from the raw records."""
    from countermark.audit import whole_log
    from countermark.wiring import log_signer

    signer = log_signer(config)
    with reading(config) as store:
        checkpoint = whole_log(store, signer.vkeys)
    if checkpoint is None:
        yield "ok", "empty"
    else:
        yield "ok", f"{checkpoint.size:,} records, chained, with the root that the newest head signed"


def _cache(config: Config) -> Iterator[tuple[str, str]]:
    """Snapshot, keys and streams against the records, which they only repeat."""
    from countermark.audit import cache_faults

    with reading(config) as store:
        wrong, size = cache_faults(store), store.cached()
    if wrong:
        yield (
            "wrong",
            f"{' and '.join(wrong)} do not say what the records say: a start would believe them. "
            "See operating.md, then look for who altered the journal.",
        )
    else:
        yield "ok", f"keys, streams and snapshot of {size:,} records are what the records say"


def _high_water(config: Config) -> Iterator[tuple[str, str]]:
    from countermark.journal import read_high_water
    from countermark.wiring import deployment, log_signer

    mark = read_high_water(config.high_water)
    deployment.check_high_water(config, log_signer(config))
    yield "ok", f"{0 if mark is None else mark.size:,} records were published, and the journal has them"


def _policy(config: Config) -> Iterator[tuple[str, str]]:
    from countermark.audit import present_state
    from countermark.policy import compile_bundle, load_sources
    from countermark.wiring import connectors

    bundle = compile_bundle(load_sources(config.policy), connectors.drafts(), config.deployment)
    with reading(config) as store:
        current = present_state(store).bundle
    if current is None:
        yield "wrong", "no policy is active. Run `countermark policy activate`."
    elif current.digest != bundle.digest:
        yield (
            "warning",
            f"the policy directory ({short(bundle.digest)}) is not what is in force ({short(current.digest)})",
        )
    else:
        yield "ok", f"{short(bundle.digest)} is in force, and the policy directory is the same"


def _sending(config: Config) -> Iterator[tuple[str, str]]:
    """Whether the tools of the policy in force could be sent from here, a line for each reason why not."""
    from countermark.audit import present_state
    from countermark.wiring import connectors

    with reading(config) as store:
        current = present_state(store).bundle
    tools = {} if current is None else current.compiled.tools
    why: dict[str, list[str]] = {}
    for name, tool in sorted(tools.items()):
        try:
            connectors.check_sending(config, tool)
        except CountermarkError as error:
            what = error.message.replace(f" {name} ", " it ")
            why.setdefault(f"{what} [{error.code}]. {error.hint}".strip(), []).append(name)
    for said, names in why.items():
        yield "warning", f"{', '.join(names)} cannot be sent by `act` and `approve` here: {said}"
    if not why:
        yield "ok", f"{len(tools)} tools can be sent"


CHECKS: tuple[tuple[str, Callable[[Config], Iterator[tuple[str, str]]]], ...] = (
    ("files", _files),
    ("keys", _keys),
    ("journal", _journal),
    ("cache", _cache),
    ("high-water", _high_water),
    ("policy", _policy),
    ("secrets", doctor_host.secrets),
    ("sending", _sending),
    ("channels", doctor_host.channels),
    ("triggers", doctor_host.triggers),
    ("users", doctor_host.users),
    ("clock", doctor_host.clock),
    ("witnesses", doctor_host.witnesses),
    ("fsync", doctor_host.fsync),
    ("disk", doctor_host.disk),
    ("backup", doctor_host.backup),
)
