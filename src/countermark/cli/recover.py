"""``recover``: stay open until the provider could say what became of what is open or unknown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import Here, as_json_option, bad, careful, emit, good, pass_here, reading

if TYPE_CHECKING:
    from countermark.cli.base import Config
    from countermark.wiring import Deployment

WAIT_S = 300  # the shipped tools: a minute in which it may be tried again, then 210 s of quiet
EVERY_S = 5
EXIT_OPEN = 5  # as of an action that is unknown


@click.command()
@click.option("--wait", type=click.IntRange(0, 86_400), metavar="SECONDS", default=WAIT_S, show_default=True,
              help="How long to stay open at most; 0 asks once.")  # fmt: skip
@as_json_option
@pass_here
@click.pass_context
def recover(ctx: click.Context, here: Here, wait: int, as_json: bool) -> None:
    """Ask the provider about every action that is open or unknown, until all are settled or the time is over.

    "The provider does not know it" counts only when nothing can be on its way any more, and the process that owns the
    deployment must have been open for all of that quiet time: 210 seconds with the shipped tools. Exit 5 when something
    stays unknown.
    """
    from countermark.wiring import open_deployment

    config = here.config()
    before = _open(config)
    with open_deployment(config.root) as handle:
        handle.call("recover", {})
        for _ in range(-(-wait // EVERY_S)):
            if not _open(config):
                break
            time.sleep(EVERY_S)
            handle.call("recover", {})
        left = _open(config)
        settled = [_settled(handle, name, agent) for name, agent in before.items() if name not in left]
    emit({"settled": settled, "unknown": sorted(left)}, _lines(settled, left, wait), as_json=as_json)
    ctx.exit(EXIT_OPEN if left else 0)


def _open(config: Config) -> dict[str, str]:
    """Actions without a final outcome, each with its agent."""
    from countermark.audit import present_state

    with reading(config) as store:
        return {i.id: str(store.record(seq).body["agent"]) for seq, i in present_state(store).open.items()}


def _settled(handle: Deployment, name: str, agent: str) -> dict[str, Any]:
    found = handle.call("result", {"id": name}, agent)
    return {member: found[member] for member in ("action", "status", "code", "ref")}


def _lines(settled: list[dict[str, Any]], left: dict[str, str], wait: int) -> list[str]:
    lines = []
    for item in settled:
        paint = good if item["status"] == "confirmed" else bad
        lines.append(f"{paint(item['status'])} [{item['code']}] {item['action']} {item['ref']}".rstrip())
    lines += [f"{careful('unknown')} {name}" for name in sorted(left)]
    if left:
        lines.append(f"{len(left):,} stay unknown. Run it again with a longer --wait than {wait}; "
                     "never pay them by another way until they are settled.")  # fmt: skip
    return lines or ["Nothing was open."]
