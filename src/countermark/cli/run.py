"""``run`` and ``runs``: start a workflow and watch it; look at those that are open or over, and cancel one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.act import only_agent
from countermark.cli.base import (
    Here,
    as_json_option,
    bad,
    careful,
    emit,
    good,
    mandate_option,
    pass_here,
    read_file,
    reading,
    strict_json,
    table,
)
from countermark.cli.runs import graph, migrate, receipt
from countermark.model.canon import canon, read_json
from countermark.model.errors import ConfigError, CountermarkError

if TYPE_CHECKING:
    from countermark.wiring import Deployment
    from countermark.workflow import Definition, Known

EXITS = {"success": 0, "waiting": 4, "failure": 6, "cancelled": 6}
POLL_S = 0.1
OPEN = ("running", "waiting")
FILE_BYTES_MAX = 256_000
CALLED_MAX = 64
SHORT_US = 10_000_000  # what takes no longer is said in milliseconds
_CALL = re.compile(r"(?:^|[\s{,])call:[ \t]*['\"]?([A-Za-z0-9._-]+)", re.MULTILINE)
DEFINITIONS = (".yaml", ".yml", ".json")
_MARKS = {"success": "✓", "failure": "✗", "skipped": "-", "running": "…", "pending": "·"}


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--input", "-i", "given", metavar="NAME=VALUE", multiple=True, help="An input; JSON unless it is a text.")
@click.option("--inputs", "file_of_inputs", metavar="FILE", help="A JSON object of inputs; `-i` comes before it.")
@click.option("--agent", metavar="NAME", help="As whom it acts (default: the only agent with a mandate).")
@mandate_option
@click.option("--event", metavar="ID", default="", help="What makes it run: the same ID never starts it twice.")
@click.option("--detach", is_flag=True, help="Answer when it has started.")
@click.option("--check", "only", is_flag=True, help="Read FILE by the policy in force, and start nothing.")
@as_json_option
@pass_here
@click.pass_context
def run(
    ctx: click.Context, here: Here, file: str, given: tuple[str, ...], file_of_inputs: str | None, agent: str | None,
    mandate: str | None, event: str, detach: bool, only: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run a workflow and watch its steps, until it is over or waits.

    FILE is its definition in YAML; definitions that it calls stand in the same folder. Or it is the canonical document
    as JSON, as `Workflow.document()` makes it, named *.json; what that calls was recorded before. A tool, agent or
    source that is not here is found before anything is recorded.

    The exit code says how it ended:
    0 success, 4 it waits (for people, an event or a time) and goes on by itself, 6 failure or cancelled, 1 an error.
    """
    from countermark.wiring import open_deployment

    if only:
        _checked(here, Path(file), as_json=as_json)
        return
    definition, called = compiled(Path(file))
    inputs = inputs_of(definition, given, {} if file_of_inputs is None else _inputs_in(file_of_inputs))
    with open_deployment(here.config().root) as handle:
        body = {
            "document": dict(definition.document), "inputs": inputs, "agent": agent or only_agent(handle),
            "trigger": {"kind": "manual", "event": event, "record": None},
        }  # fmt: skip
        started = _started(handle, here, Path(file), called, body if mandate is None else {**body, "mandate": mandate})
        shown = handle.call("workflow.show", {"run": started["run"]})
        if not detach:
            *_, shown = _watched(handle, started["run"], quiet=as_json)
    status = str(shown["status"])
    text = [f"{_painted(status)}  {definition.name}", f"  run      {started['run']}", *_outputs(shown)]
    text += [f"  {line}" for line in (*_waits(shown), *_stands(shown))]
    if status == "waiting":
        text.append(f"  then     countermark runs show {shown['run']} --wait")
    emit({**shown, "fresh": started["fresh"]}, text, as_json=as_json)
    ctx.exit(0 if detach else EXITS.get(status, 1))


def _started(handle: Deployment, here: Here, file: Path, called: Sequence[Definition], body: Mapping[str, Any]) -> Any:
    """A run, after the definitions that it calls; what the gate refuses of a definition is shown where it stands."""
    from countermark.workflow import DefinitionError

    try:
        for other in called:
            handle.call("workflow.define", {"document": dict(other.document)})
        return handle.call("workflow.start", body)
    except CountermarkError as error:
        if error.code == DefinitionError.code:
            compiled(file, known_by(here))
        raise


def _checked(here: Here, file: Path, *, as_json: bool) -> None:
    definition, called = compiled(file, known_by(here))
    found = {"name": definition.name, "definition": definition.digest, "calls": [one.digest for one in called]}
    lines = [f"{good('ok')}  {definition.name}", f"  definition {definition.digest}",
             *(f"  calls      {one.name} {one.digest}" for one in called)]  # fmt: skip
    emit(found, lines, as_json=as_json)


def known_by(here: Here) -> Known:
    """What a definition may name by the policy in force, which is read beside whoever owns the deployment."""
    from countermark.audit import present_state

    config = here.config()
    with reading(config) as store:
        return config.workflows.known(present_state(store).bundle)


def compiled(file: Path, known: Known | None = None) -> tuple[Definition, list[Definition]]:
    """A definition and those that it calls, the innermost first. Raises ``CountermarkError``, which says where."""
    from countermark.workflow import ANYTHING, DefinitionError, read_definition, read_yaml

    if file.suffix == ".json":
        document = strict_json(str(file), FILE_BYTES_MAX)
        return read_definition(document, known=known or ANYTHING), []
    found: dict[str, Definition] = {}
    under_way: list[str] = []

    def read(path: Path) -> Definition:
        if path.name in under_way or len(found) > CALLED_MAX:
            raise ConfigError(f"{path.name} calls itself, or more than {CALLED_MAX} others")
        under_way.append(path.name)
        text = read_file(str(path), FILE_BYTES_MAX).decode("utf-8", "replace")
        names = [name for name in calls_of(text) if (path.parent / f"{name}.yaml").is_file()]
        others = {name: read(path.parent / f"{name}.yaml").digest for name in names}
        try:
            definition = read_yaml(text, folder=path.parent, workflows=others, known=known or ANYTHING).definition
        except DefinitionError as error:
            raise error.of_file(path.name) from None
        under_way.pop()
        found.setdefault(definition.digest, definition)
        return definition

    top = read(file)
    return top, [one for digest, one in found.items() if digest != top.digest]


def calls_of(text: str) -> list[str]:
    """Names after ``call:``, as far as they can be seen without reading the definition."""
    return sorted(set(_CALL.findall(text)))


def inputs_of(definition: Definition, given: Sequence[str], more: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs from the command line, before those of a file. Raises ``ConfigError``."""
    found = dict(more)
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} is not NAME=VALUE")
        declared = definition.inputs.get(name)
        try:
            found[name] = value if declared is None or declared.type == "string" else read_json(value.encode())
        except CountermarkError:
            wanted = "" if declared is None else declared.type
            raise ConfigError(
                f"the input {name} is not of type {wanted}: {value[:60]!r}",
                hint='A list or an object is JSON: \'["a", "b"]\'. Long ones stand in a file: --inputs FILE.',
            ) from None
    return found


def _inputs_in(file: str) -> dict[str, Any]:
    """A file of inputs. Raises ``CountermarkError``."""
    found = strict_json(file, FILE_BYTES_MAX)
    if type(found) is not dict:
        raise ConfigError(f"{file} does not hold a JSON object", hint='Such as: {"amount": 4200, "invoice": "INV-1"}.')
    return found


def _watched(handle: Deployment, name: str, *, quiet: bool) -> Iterator[Mapping[str, Any]]:
    """How the run is, again and again until it is over or waits; each step is printed once, when it is over.

    What keeps the run from going on is said once too, beside the output.
    """
    told: set[str] = set()
    while True:
        shown = handle.call("workflow.show", {"run": name})
        for row in shown["steps"]:
            if not quiet and row["place"] not in told and row["conclusion"] in ("success", "failure", "skipped"):
                told.add(row["place"])
                click.echo(_line(row))
        if shown["fault"] and shown["fault"] not in told:
            told.add(shown["fault"])
            click.echo(f"{careful('held')}  {shown['fault']}", err=True)
        yield shown
        if shown["status"] != "running":
            return
        time.sleep(POLL_S)


def _took(over_us: int) -> str:
    from countermark.audit import lasting

    return f"{over_us // 1_000} ms" if over_us < SHORT_US else lasting(over_us)


def _line(row: Mapping[str, Any]) -> str:
    code = f" [{row['code']}]" if row["code"] else ""
    went_on = row["outcome"] == "failure" and row["conclusion"] == "success"
    state, mark = ("failure, went on", "!") if went_on else (row["conclusion"], _MARKS.get(row["conclusion"], "?"))
    took = "" if row["began"] is None or row["ended"] is None else f"  {_took(row['ended'] - row['began'])}"
    label = f"  {row['name']}" if row["name"] else ""
    if row["kind"] == "agent" and row["other"]:
        label += f"  in {row['other']} (countermark explain)"
    why = f"\n    {_words(row['message'])}" if row["message"] else ""
    return f"{mark} {row['place']}  {row['kind']}  {state}{code}{label}{took}{why}"


def _outputs(shown: Mapping[str, Any]) -> list[str]:
    if shown.get("erased"):
        return ["  Its values were erased: what it did cannot be told any more."]
    return [f"  {name} = {canon(value).decode()}" for name, value in sorted(shown["outputs"].items())]


def _words(message: str) -> str:
    """Why nothing was sent, in words; what code says stays as it is."""
    from countermark.audit import BARRIER

    return f"{message}: {BARRIER[message]}" if message in BARRIER else message


def _waits(shown: Mapping[str, Any]) -> Iterator[str]:
    """What each running step waits for, and what somebody may do about it."""
    from countermark.audit import when

    if shown["behind"]:
        yield f"waits    behind {shown['behind']}, which is before it in its concurrency group"
    for row in shown["steps"]:
        what = {
            "people": "people: countermark approvals list", "provider": "the provider",
            "agent": f"its agent, in the run {row['other']}", "call": f"the run {row['other']}",
            "event": "an event", "time": "its time", "retry": "its next attempt",
        }.get(row["waits"])  # fmt: skip
        if what is not None:
            yield f"waits    {row['place']} for {what}" + ("" if row["due"] is None else f", {when(row['due'])}")
    if shown["fault"]:
        yield f"held     {shown['fault']}"


def _cancelled(shown: Mapping[str, Any]) -> Iterator[str]:
    """Who cancelled it, why and when."""
    from countermark.audit import cancelled_by, when

    said = shown["cancelled"]
    if said is not None:
        yield f"  cancelled  {cancelled_by(said['person'], said['reason'])}, {when(said['at'])} (#{said['seq']})"


def _stands(shown: Mapping[str, Any]) -> Iterator[str]:
    """Of a run that did not succeed: the payments that were made all the same, and what could not be undone."""
    if shown["status"] in ("failure", "cancelled"):
        for paid in shown["stand"]:
            yield f"stands   {paid['place']}  {paid['amount']} {paid['currency']}  {paid['ref']}"
        for place in shown["left"]:
            yield f"left     {place}: its undo failed"


def _painted(status: str) -> str:
    return (good if status == "success" else careful if status in ("waiting", "running") else bad)(status)


@click.group()
def runs() -> None:
    """Runs of workflows: those that are open, and those that are over."""


@runs.command("list")
@click.option("--name", metavar="NAME", default="", help="Only those of one workflow.")
@as_json_option
@pass_here
def list_(here: Here, name: str, as_json: bool) -> None:
    """Open runs, and the runs that ended last."""
    from countermark.audit import when
    from countermark.wiring import open_deployment

    config = here.config()
    with open_deployment(config.root) as handle:
        found = handle.call("workflow.list", {"name": name})
    rows = []
    with reading(config) as store:
        for one in (*found["open"], *found["ended"]):
            begun, ended = store.record(one["started"]), one.get("ended")
            rows.append([one["run"], one["name"], one.get("status") or one["state"], begun.body["agent"],
                         when(begun.at), "" if ended is None else when(store.record(ended).at)])  # fmt: skip
    columns = ("run", "workflow", "status", "agent", "began", "ended")
    emit(found, table(columns, rows) or ["There are no runs."], as_json=as_json)


@runs.command("show")
@click.argument("name", metavar="RUN")
@click.option("--wait", is_flag=True, help="Wait until it is over, and exit as `run` does.")
@as_json_option
@pass_here
@click.pass_context
def show(ctx: click.Context, here: Here, name: str, wait: bool, as_json: bool) -> None:
    """A run, step by step."""
    from countermark.wiring import open_deployment

    with open_deployment(here.config().root) as handle:
        found = handle.call("workflow.show", {"run": name})
        while wait and found["status"] in OPEN:
            time.sleep(POLL_S)
            found = handle.call("workflow.show", {"run": name})
    text = [f"{_painted(str(found['status']))}  {found['name']}", f"  run        {name}",
            f"  definition {found['definition']}", *_cancelled(found), *(f"  {_line(row)}" for row in found["steps"]),
            *_outputs(found), *(f"  {line}" for line in (*_waits(found), *_stands(found)))]  # fmt: skip
    emit(found, text, as_json=as_json)
    if wait:
        ctx.exit(EXITS.get(str(found["status"]), 1))


@runs.command("cancel")
@click.argument("name", metavar="RUN")
@click.option("--reason", required=True, metavar="TEXT", help="Recorded.")
@click.option("--person", required=True, metavar="NAME", help="Who cancels it; recorded as said.")
@pass_here
def cancel(here: Here, name: str, reason: str, person: str) -> None:
    """Begin nothing more in a run; what is under way ends, and what can be undone is."""
    from countermark.wiring import open_deployment

    with open_deployment(here.config().root) as handle:
        handle.call("workflow.cancel", {"run": name, "reason": reason, "person": person})
        shown = handle.call("workflow.show", {"run": name})
    left = "what is under way is over" if not shown["behind"] else f"{shown['behind']}, before it in its group, is over"
    click.echo(f"{name} is cancelled" + (f": it ends when {left}" if shown["status"] in OPEN else ""))


for command in (receipt, graph, migrate):
    runs.add_command(command)
