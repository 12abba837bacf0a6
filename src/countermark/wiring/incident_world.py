"""A payables desk on a fake clock, for the incident demos: one deployment, the desk's simulator, and the calls made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from countermark.audit import audit_paths, backtest, bundles_of, forbids_in, reperform
from countermark.authority import build_approval, load_private, sign_approval
from countermark.connectors import RecordedConnector
from countermark.journal import SqliteStore
from countermark.model.clock import US, FakeClock
from countermark.model.digest import pseudonym
from countermark.policy import compile_bundle, laid_over, load_rule, template_files
from countermark.twins.vendors import VendorDesk
from countermark.wiring.config import load_config
from countermark.wiring.connectors import drafts
from countermark.wiring.deployment import Deployment, open_deployment, read_key
from countermark.wiring.init import Made, init_deployment

ZONE = ZoneInfo("Europe/Berlin")
FILES = Path(__file__).parent / "incidents"
ACCOUNTS = {
    "V-1001": "DE02100100101001", "V-1002": "SE02200200202002", "V-1003": "NL02300300303003",
    "V-1004": "FR02400400404004",
}  # fmt: skip
NAMES = {"V-1001": "harbour-cranes", "V-1002": "north-mill", "V-1003": "quay-paint", "V-1004": "delta-print"}
RULE_FILES = ("facts.toml", "{0}.cedar")

Kind = Literal["screen", "change", "pay", "approve", "publish"]


def at(day: int, clock: str) -> int:
    """A moment of November 2026 in the desk's zone, in microseconds."""
    local = datetime.fromisoformat(f"2026-11-{day:02d}T{clock}:00").replace(tzinfo=ZONE)
    return int(local.timestamp()) * US


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that somebody does. ``amount`` is in cents."""

    at: int
    kind: Kind
    vendor: str = ""
    invoice: str = ""
    amount: int = 0
    account: str = ""
    reason: str = ""


def rule_texts(name: str, values: Mapping[str, str]) -> dict[str, str]:
    """The rule's files, as they lie in a rule directory; ``values`` fill in what is written ``{{NAME}}``."""
    found = {}
    for form in RULE_FILES:
        text = (FILES / name / form.format(name)).read_text("utf-8")
        for mark, value in values.items():
            text = text.replace("{{" + mark + "}}", value)
        found[form.format(name)] = text
    return found


def write_rule(folder: Path, rule: Mapping[str, str]) -> None:
    """A rule directory, as ``audit paths`` takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rule.items():
        (folder / name).write_text(text, "utf-8")


@dataclass
class World:
    """A deployment that was played. ``actions`` maps an invoice to the action that asked to pay it."""

    made: Made
    desk: VendorDesk
    actions: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> SqliteStore:
        return SqliteStore(load_config(self.made.root).journal, readonly=True)


def play(root: Path, steps: Iterable[Step], rule: Mapping[str, str] | None, accounts: Mapping[str, str]) -> World:
    """Make a deployment, with the rule in force from the start or without it, and let everybody do their steps."""
    ordered = sorted(steps, key=lambda step: step.at)
    clock = FakeClock(ordered[0].at - 3_600 * US)
    desk = VendorDesk(clock.now_us, accounts)
    connectors = {"desk": RecordedConnector(desk.answers, name="desk")}
    made = init_deployment(root, "vendor-payments", "incident", edit=_policy(rule), clock=clock, connectors=connectors)
    world = World(made, desk)
    with open_deployment(root, clock=clock, connectors=connectors) as handle:
        runs: dict[tuple[str, int], str] = {}
        for step in ordered:
            clock.advance((step.at - clock.now_us()) // US)
            _do(world, handle, runs, step)
    return world


def _policy(rule: Mapping[str, str] | None) -> dict[str, str]:
    base = FILES / "base"
    files = {name: (base / name).read_text("utf-8") for name in ("limits.toml", "tools.toml")}
    files["policies/desk.cedar"] = (base / "desk.cedar").read_text("utf-8")
    for name, text in (rule or {}).items():
        files[name if name == "facts.toml" else f"policies/{name}"] = text
    # The template only lends its frame: every file of it is replaced, or emptied.
    return {**dict.fromkeys(template_files("vendor-payments"), ""), **files}


def _do(world: World, handle: Deployment, runs: dict[tuple[str, int], str], step: Step) -> None:
    if step.kind == "publish":
        world.desk.publish(step.amount, ("blocked-trading", step.reason))
        return
    if step.kind == "approve":
        _approve(world, handle, step)
        return
    agent = "masterdata" if step.kind == "change" else "payables"
    day = step.at // (86_400 * US)
    if (agent, day) not in runs:
        runs[agent, day] = handle.start_run(purpose="the desk's day", agent=agent)
    tool, args = _call(step)
    result = handle.act(tool, args, run=runs[agent, day], agent=agent, reason=step.reason,
                        call_id=f"{step.kind}-{step.at // US}-{step.vendor}")  # fmt: skip
    if step.kind == "pay":
        world.actions[step.invoice] = result.action
        world.answers[step.invoice] = result.status


def _call(step: Step) -> tuple[str, dict[str, Any]]:
    if step.kind == "screen":
        return "screening.check", {"vendor": step.vendor}
    if step.kind == "change":
        return "vendors.update", {"vendor": step.vendor, "account": step.account}
    return "bank.pay", {"vendor": step.vendor, "amount": step.amount, "invoice": step.invoice}


def _approve(world: World, handle: Deployment, step: Step) -> None:
    """The controller says yes to what waits for this invoice."""
    asked = [e for e in handle.call("escalations", {"after": None}) if e["id"] == world.actions[step.invoice]]
    if not asked:
        return
    document = build_approval(
        asked[0], deployment=world.made.deployment, ladder="finance", verdict="approve", person="controller"
    )
    reply = handle.call("answer", sign_approval(document, load_private(world.made.people["controller"])))
    result = reply["result"]
    world.answers[step.invoice] = result["status"] if result["status"] != "denied" else result["code"]


@dataclass(frozen=True)
class Found:
    """What hindsight says of a world: the documents of ``backtest`` and ``audit_paths``, and whether all follows."""

    backtest: dict[str, Any]
    paths: dict[str, Any]
    reperformed: bool

    @property
    def by_backtest(self) -> set[str]:
        """Invoices that the rule would have stopped."""
        refused = [row for row in self.backtest["listed"] if row["now"]["disposition"] == "deny"]
        return {row["references"]["invoice"] for row in refused}

    @property
    def by_paths(self) -> set[str]:
        """Invoices whose payment deviates from the rule."""
        return {row["references"]["invoice"] for row in self.paths["deviations"]}


def hindsight(world: World, folder: Path) -> Found:
    """Hold the world against the rule in ``folder``, with the functions behind the two commands."""
    config = load_config(world.made.root)
    key = read_key(config.keys / "pseudonym.key")
    store = world.store
    try:
        rule = load_rule(folder)
        sources = tuple((path, text) for path, text in bundles_of(store)(world.made.bundle).document["source"])
        bundle = compile_bundle(laid_over(sources, rule), drafts())
        named = forbids_in("\n".join(text for path, text in rule if path.endswith(".cedar")))
        tested = backtest(store, bundle, lambda kind, value: pseudonym(key, kind, value))
        paths = audit_paths(store, bundle, lambda kind, value: pseudonym(key, kind, value), named)
        return Found(tested, paths, reperform(store.records(), bundles_of(store)).ok)
    finally:
        store.close()
