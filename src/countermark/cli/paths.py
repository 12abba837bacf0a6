"""``audit paths``: what was done, held against a rule or a definition that may have been written later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from countermark.cli.base import Here, as_json_option, bad, careful, emit, good, opening, pass_here, read_file, reading
from countermark.cli.draft import bundle_named, moment_us, now_us, pseudonyms, since_option
from countermark.model.errors import ConfigError

if TYPE_CHECKING:
    from countermark.audit import Source
    from countermark.cli.base import Config
    from countermark.journal import SqliteStore
    from countermark.policy import Bundle
    from countermark.workflow import Definition

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@click.command()
@click.argument("rule", metavar="RULEDIR|BUNDLE|DEFINITION")
@click.option("--rule", "names", metavar="ID", multiple=True, help="Only this forbid of it; may be repeated "
                                                                   "(default: all that are not in force).")  # fmt: skip
@click.option("--run", metavar="RUN", help="Only this run of a definition.")
@click.option("--svg", metavar="FILE", type=click.Path(path_type=Path),
              help="Draw --run, or the first run that deviates.")  # fmt: skip
@click.option("--exceptions", metavar="FILE", help="Deviations that are legitimate, in TOML.")
@click.option("--pack", metavar="PACK", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Read the runs from a pack.")  # fmt: skip
@since_option
@as_json_option
@pass_here
@click.pass_context
def paths(
    ctx: click.Context, here: Here, rule: str, names: tuple[str, ...], run: str | None, svg: Path | None,
    exceptions: str | None, pack: Path | None, since: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Hold what was done against a rule or a definition, also one written later.

    RULEDIR holds the rule alone (*.cedar, and facts.toml for what it reads), laid over the policy in force, or a whole
    policy; BUNDLE is the digest of one that was in force. Each deviation shows what was required and what really
    happened, in order. An exception is a permit with @ticket that ends by itself; what it cleared is named.

    DEFINITION is a workflow in YAML or JSON, or the digest of a recorded one: every run of its name is held
    against it, each deviation is named with all runs that have it, and --exceptions clears what people declared
    legitimate.

    Exit 1 when one deviates, else 2 when of one it cannot be established, or when no run has that name.
    """
    from countermark.cli.run import DEFINITIONS

    if rule.endswith(DEFINITIONS) or run or svg or exceptions or pack:
        if names:
            raise click.UsageError("--rule is for rules, not for a definition")
        ctx.exit(_runs(here, rule, _Asked(run, svg, exceptions, pack, since), as_json=as_json))
    config = here.config()
    with reading(config) as store:
        if recorded(store, rule) is not None:
            ctx.exit(_runs(here, rule, _Asked(since=since), as_json=as_json))
    ctx.exit(_actions(config, rule, names, since, as_json=as_json))


def _actions(config: Config, rule: str, names: tuple[str, ...], since: str | None, *, as_json: bool) -> int:
    """Actions against rules; the exit code."""
    from countermark.audit import audit_paths, paths_lines
    from countermark.cli.evidence import noted

    with reading(config) as store, opening(config, store) as unseal:
        bundle, forbids = _bundle(config, store, rule)
        start = moment_us(since, bundle.compiled.zone, now_us())
        size = store.size()
        found = audit_paths(store, bundle, pseudonyms(config), names or forbids, since=start, unseal=unseal)
    noted(config, "audit", 0, size)
    lines = paths_lines(found)
    paint = bad if found["deviating"] else good
    emit(found, [paint(lines[0]), *lines[1:]], as_json=as_json)
    return 1 if found["deviating"] else 2 if found["undecided"] else 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options about runs."""

    run: str | None = None
    svg: Path | None = None
    exceptions: str | None = None
    pack: Path | None = None
    since: str | None = None


def _runs(here: Here, name: str, asked: _Asked, *, as_json: bool) -> int:
    """Runs against a definition; the exit code."""
    from countermark.audit import audit_runs, read_exceptions, run_drawn, runs_lines

    allowed = read_exceptions(read_file(asked.exceptions).decode("utf-8", "replace")) if asked.exceptions else []
    with records(here, asked.pack) as source:
        definition = definition_named(source, name)
        start = moment_us(asked.since, _zone(source), now_us())
        found = audit_runs(source, definition, since=start, exceptions=allowed, run=asked.run)
        if asked.svg is not None:
            drawn = asked.run or next((row["run"] for row in found["runs"]), None)
            if drawn is None:
                raise ConfigError("no run deviates, so there is none to draw", hint="Name one with --run.")
            write_text(asked.svg, run_drawn(source, drawn, definition))
    lines = runs_lines(found)
    open_ = bool(found["none"] or found["without_definition"] or found["sealed"])
    paint = bad if found["deviating"] else careful if found["none"] else good
    emit(found, [paint(lines[0]), *lines[1:]], as_json=as_json)
    return 1 if found["deviating"] else 2 if open_ else 0


@contextmanager
def records(here: Here, pack: Path | None) -> Iterator[Source]:
    """The journal of here, the reading of which is recorded, or a pack; values of sealed runs as far as they open."""
    from countermark.audit import Opened, PackedRecords
    from countermark.cli.evidence import noted

    if pack is not None:
        packed = PackedRecords(pack)
        yield Opened(packed, packed.unseal)
        return
    config = here.config()
    with reading(config) as store, opening(config, store) as unseal:
        size = store.size()
        yield Opened(store, unseal)
    noted(config, "audit", 0, size)


def definition_named(source: Source, name: str) -> Definition:
    """A definition from a file, or a recorded one by its digest. Raises ``CountermarkError``."""
    from countermark.cli.run import DEFINITIONS, compiled

    if name.endswith(DEFINITIONS):
        return compiled(Path(name))[0]
    found = recorded(source, name)
    if found is None:
        raise ConfigError(f"{name[:80]} is no file of a definition, and none with this digest was recorded")
    return found


def recorded(source: Source, digest: str) -> Definition | None:
    """The recorded definition with this digest."""
    from countermark.audit import recorded_definition

    return recorded_definition(source, digest) if DIGEST.fullmatch(digest) else None


def _zone(source: Source) -> str:
    """In which zone a day is; packs are read in UTC."""
    from countermark.audit import present_state
    from countermark.journal import SqliteStore

    if not isinstance(source, SqliteStore):
        return "UTC"
    bundle = present_state(source).bundle
    return "UTC" if bundle is None else bundle.compiled.zone


def write_text(path: Path, text: str) -> None:
    """Write a file that people asked for. Raises ``ConfigError``."""
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _bundle(config: Config, store: SqliteStore, name: str) -> tuple[Bundle, list[str]]:
    """The policy that the rule makes, and the forbids that are asked about: a rule's own, a policy's new ones."""
    from countermark.audit import forbids_in, present_state, rule_ids
    from countermark.policy import compile_bundle, laid_over, load_rule
    from countermark.wiring import connectors

    if not Path(name).is_dir() or (Path(name) / "limits.toml").exists():
        bundle = bundle_named(config, store, name)
        return bundle, rule_ids(store, bundle)
    present = present_state(store).bundle
    rule = load_rule(name)
    base = () if present is None else tuple((path, text) for path, text in present.document["source"])
    texts = [text for path, text in rule if path.endswith(".cedar")]
    return compile_bundle(laid_over(base, rule), connectors.drafts()), forbids_in("\n".join(texts))


@click.command()
@click.argument("ref", metavar="ID")
@as_json_option
@pass_here
def approved(here: Here, ref: str, as_json: bool) -> None:
    """Compare what was asked, approved, sent and booked for one action, and what its payee stood for meanwhile.

    ID as for `countermark explain`.
    """
    from countermark.audit import approved_and_executed, approved_lines
    from countermark.cli.evidence import noted

    config = here.config()
    with reading(config) as store:
        size = store.size()
        found = approved_and_executed(store, ref)
    noted(config, "explain", 0, size)
    emit(found, approved_lines(found), as_json=as_json)
