"""``audit paths``: past actions held against a rule that may have been written later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from countermark.cli.base import Here, as_json_option, bad, emit, good, opening, pass_here, reading
from countermark.cli.draft import bundle_named, moment_us, now_us, pseudonyms, since_option

if TYPE_CHECKING:
    from countermark.cli.base import Config
    from countermark.journal import SqliteStore
    from countermark.policy import Bundle


@click.command()
@click.argument("rule", metavar="RULEDIR|BUNDLE")
@click.option("--rule", "names", metavar="ID", multiple=True, help="Only this forbid of it; may be repeated "
                                                                   "(default: all that are not in force).")  # fmt: skip
@since_option
@as_json_option
@pass_here
@click.pass_context
def paths(ctx: click.Context, here: Here, rule: str, names: tuple[str, ...], since: str | None, as_json: bool) -> None:
    """Hold every action that was carried out against a rule, also one written later.

    RULEDIR holds the rule alone (*.cedar, and facts.toml for what it reads), laid over the policy in force, or a whole
    policy; BUNDLE is the digest of one that was in force. Each deviation shows what was required and what really
    happened, in order. An exception is a permit with @ticket that ends by itself; what it cleared is named.
    Exit 1 when one deviates, else 2 when of one it cannot be established.
    """
    from countermark.audit import audit_paths, paths_lines
    from countermark.cli.evidence import noted

    config = here.config()
    with reading(config) as store, opening(config, store) as unseal:
        bundle, forbids = _bundle(config, store, rule)
        start = moment_us(since, bundle.compiled.zone, now_us())
        size = store.size()
        found = audit_paths(store, bundle, pseudonyms(config), names or forbids, since=start, unseal=unseal)
    noted(config, "audit", 0, size)
    lines = paths_lines(found)
    paint = bad if found["deviating"] else good
    emit(found, [paint(lines[0]), *lines[1:]], as_json=as_json)
    ctx.exit(1 if found["deviating"] else 2 if found["undecided"] else 0)


def _bundle(config: Config, store: SqliteStore, name: str) -> tuple[Bundle, list[str]]:
    """The policy that the rule makes, and the forbids that are asked about: a rule's own, a policy's new ones."""
    from pathlib import Path

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
