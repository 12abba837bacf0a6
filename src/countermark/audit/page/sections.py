"""The sections of the page before the timeline, in the order in which an auditor works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.audit.changes import bundle_changes
from countermark.audit.page.gather import LISTED_MAX, Gathered
from countermark.audit.page.markup import Child, Html, inside, table, tag
from countermark.audit.page.timeline import short
from countermark.audit.page.times import both, utc
from countermark.audit.words import lasting
from countermark.model.errors import CountermarkError
from countermark.model.records import Record
from countermark.model.words import money
from countermark.policy import Bundle

# Members of what people sign, and of stops, that say what it is about; digests, keys and signatures do not.
_TOLD = frozenset((
    "kind", "value", "reason", "person", "agent", "purpose", "payee", "name", "account", "principal", "by", "stands_in",
    "label", "note", "ref", "source", "date", "outcome", "amount", "tool", "lane", "kill", "action",
))  # fmt: skip
Figures = Mapping[str, Any]
TIERS = {  # where the gate stood between an agent and the effect
    "enforcing": "the gate was a process apart, and it alone held the credential",
    "embedded": "the gate ran inside the calling program",
    "observing": "the agent's own program ran the tool and reported the outcome",
}
CHANGES_MAX = 12  # lines on what a policy changed
NOT_HERE = (
    "Not in this pack: it holds the beginnings and the ends of runs, and not what was asked for, paid or answered."
)


def section(name: str, title: str, *children: Child | list[Child] | list[Html]) -> Html:
    return tag("section", tag("h2", title, id=f"{name}-title"), *children, id=name, aria_labelledby=f"{name}-title")


def number(figures: Figures, path: str) -> Html:
    """A figure that the check of this page makes again: it is marked with where it stands among the figures."""
    value: Any = figures
    for step in path.split("/"):
        value = value.get(step, 0) if isinstance(value, Mapping) else value[int(step)]
    return tag("b", f"{value:,}", data_figure=path)


def sum_of(figures: Figures, name: str) -> list[Html]:
    """Sums per currency, in the order of the figures."""
    rows: Any = figures
    for step in name.split("/"):
        rows = rows[step]
    return [
        tag("li", tag("b", money(int(amount), currency), data_sum=f"{name}/{place}"))
        for place, (currency, amount) in enumerate(rows)
    ]


def link(seq: int, shown: set[int], words: str = "") -> Html:
    """A record's number; a link where the timeline has it."""
    said = words or f"#{seq}"
    return tag("a", said, href=f"#seq-{seq}") if seq in shown else tag("span", said)


def question(found: Gathered, figures: Figures) -> Html:
    first = found.first_at or 0
    return section(
        "question", "Question and scope",
        tag("p", "What did the agents of ", tag("b", found.deployment), " do from ", both(first, found.zone), " to ",
            both(found.last_at, found.zone), ", under whose authority, and what is there to show it?"),
        tag("p", "Scope: every record of the log from the first one to record ", number(figures, "size"),
            ". Nothing was selected. The actions are the lines of ", tag("code", "population.csv"), ": ",
            number(figures, "actions"), " of them."),
    )  # fmt: skip


def whose(found: Gathered, figures: Figures, lines: list[str]) -> Html:
    cosigned = [name for name in lines if name != figures["origin"]]
    who = (
        "No cosignature stands on this head."
        if not cosigned
        else f"{len(cosigned)} cosignature lines: {', '.join(cosigned[:20])}."
    )
    seen = found.kinds["head.witnessed"]
    return section(
        "whose", "Whose log, which head, what time",
        tag("dl", [inside(tag("dt", name), tag("dd", value)) for name, value in (
            ("deployment", found.deployment), ("log", figures["origin"]), ("records", number(figures, "size")),
            ("root", tag("code", figures["root"])),
            ("witnesses", who + (f" {seen:,} records hold cosigned heads." if seen else "")),
            ("time", ["the gate's own clock, in UTC; beside it the zone of the policy in force, ", found.zone]),
            ("programs", ", ".join(found.versions) or "none"),
            ("tiers", "; ".join(f"{one}: {TIERS.get(one, '')}" for one in sorted(found.tiers)) or "none"),
        )]),
        tag("p", "Whether this head is one that you kept, or that witnesses of yours signed, the check above answers: "
            "this page cannot vouch for itself."),
    )  # fmt: skip


def counts(found: Gathered, figures: Figures, *, acted: bool = True) -> Html:
    """``acted``: whether actions are of what the pack holds; without them it has no totals."""

    def of(name: str) -> list[list[Child]]:
        return [[key, number(figures, f"{name}/{key}")] for key in figures[name]]

    kinds = table(("records", "count"), of("kinds"), "Records by kind")
    if not acted:
        return section("population", "Population and control totals", tag("p", NOT_HERE, cls="notice"), kinds)
    return section(
        "population", "Population and control totals",
        tag("div",
            table(("decisions", "count"), of("dispositions"), "Decisions by disposition"),
            table(("outcomes", "count"), of("outcomes"), "Outcomes"), kinds, cls="grid"),
        tag("h3", "Asked for, over all lines of the population"),
        tag("ul", sum_of(figures, "asked")) if figures["asked"] else tag("p", "Nothing with an amount."),
        tag("h3", "Confirmed"),
        tag("ul", sum_of(figures, "totals")) if figures["totals"] else tag("p", "Nothing with an amount."),
        tag("p", "Every action is a line of population.csv; an action that people were asked about has more than one "
            "decision. Sensitive values: ", number(figures, "withheld"), " withheld, ", number(figures, "erased"),
            " erased, ", number(figures, "disclosed"), " disclosed."),
    )  # fmt: skip


def exceptions(found: Gathered, shown: set[int], *, acted: bool = True) -> Html:
    seqs = {name: action.seq for name, action in found.actions.items()}
    groups: dict[str, list[Child]] = {}
    for seq, _, what, action in found.exceptions:
        at = seqs.get(action, seq)
        groups.setdefault(what, []).append(link(at, shown, f"#{seq}"))
    rows: list[list[Child | list[Child]]] = []
    for what, links in groups.items():
        many = found.exceptional[what]
        listed: list[Child] = [part for one in links for part in (one, " ")]
        rows.append([what, f"{many:,}", [*listed, f"and {many - LISTED_MAX:,} more" if many > LISTED_MAX else None]])
    pauses: list[list[Child | list[Child]]] = [
        [f"#{seq}", utc(since), utc(until), lasting(until - since), "stopped in order" if orderly else "without a stop"]
        for seq, since, until, orderly in found.pauses
    ]
    orders: list[list[Child | list[Child]]] = [
        [f"#{record.seq}", both(record.at, found.zone), record.kind, record.by, tag("span", short(about(record)))]
        for record in found.orders[:LISTED_MAX]
    ]
    defined = ", ".join(f"{short(record.body['document']['name'])} (#{record.seq})" for record in found.defined)
    ended = found.stopped
    return section(
        "exceptions", "Exceptions, overrides and downtime",
        table(("what", "count", "records"), rows, "What an auditor reads one by one") if rows
        else tag("p", "None.") if acted else None,
        None if acted else tag("p", "Denials, questions and overrides of what the runs asked for: not in this pack."),
        table(("record", "when", "kind", "by", "about"), orders, "Orders: mandates, stops, payees, keys, restores")
        if orders else None,
        tag("p", f"The first {LISTED_MAX} of {len(found.orders):,} orders are listed.")
        if len(found.orders) > LISTED_MAX else None,
        tag("p", f"Definitions of workflows that were recorded, of whatever use here: {defined}.") if defined else None,
        table(("after", "from", "to", "for", "how"), pauses, "When no gate ran") if pauses
        else tag("p", "The gate ran from the first record to the last, without a pause."),
        tag("p", f"It was stopped at record #{ended[0]} and not started again within this pack.") if ended else None,
    )  # fmt: skip


def about(record: Record) -> str:
    """What an order is about, in the words of its record."""
    body = record.body
    document: Mapping[str, Any] = next((value for value in body.values() if isinstance(value, Mapping)), body)
    said = [
        f"{name} {value}"
        for name, value in document.items()
        if isinstance(value, str | int) and name in _TOLD and value not in ("", None)
    ]
    if record.kind == "kill.set":
        said.append(f"reason {body['reason']}")
    return ", ".join(said)


def gaps(found: Gathered, figures: Figures, shown: set[int], *, acted: bool = True) -> Html:
    open_, unknown = found.open_and_unknown()
    rows: list[list[Child | list[Child]]] = []
    for what, names in (("begun, and no outcome is recorded", open_), ("nobody knows what happened", unknown)):
        for name in names[:LISTED_MAX]:
            line = found.population.lines[name]
            terms = line.first["terms"]
            amount = "" if terms["amount"] is None else money(terms["amount"], terms["currency"])
            rows.append([link(line.seq, shown), what, short(line.first["tool"]), amount])
    return section(
        "gaps", "Gaps",
        tag("p", "Open: ", number(figures, "open"), ". Unknown: ", number(figures, "unknown"), ".") if acted
        else tag("p", "Actions without an outcome: not in this pack."),
        table(("action", "what is missing", "tool", "amount"), rows, "Actions without a final outcome")
        if rows else None,
        tag("p", "Declared lost in a restore: ", "; ".join(found.lost), ".") if found.lost
        else tag("p", "No record was declared lost."),
        tag("p", "Streams without gaps are the check's to show: it counts those of every agent, run and account."),
    )  # fmt: skip


def policies(found: Gathered) -> Html:
    rows: list[list[Child | list[Child]]] = []
    before: Bundle | None = None
    for record in found.policies[:LISTED_MAX]:
        said = record.body["activation"]
        second = record.body.get("second")
        bundle = found.bundles.get(said["bundle"])
        tools = len(bundle["compiled"]["tools"]) if bundle is not None else 0
        signed: list[Child] = [short(said["activator"]), f" and {short(second['person'])}" if second else None]
        now = None if bundle is None else _read(bundle)
        rows.append([f"#{record.seq}", both(record.at, found.zone), tag("code", said["bundle"]), short(said["author"]),
                     signed, f"{tools:,}", _changed(before, now)])  # fmt: skip
        before = now
    return section(
        "policy", "The policy in force over time",
        table(("record", "in force from", "digest", "author", "signed by", "tools", "what it changed"), rows,
              "Activations"),
        tag("p", f"The first {LISTED_MAX} are listed.") if len(found.policies) > LISTED_MAX else None,
        tag("p", "Each policy stands in full in the folder ", tag("code", "policy/"), " under its digest."),
    )  # fmt: skip


def _read(document: Mapping[str, Any]) -> Bundle | None:
    try:
        return Bundle.from_document(document)
    except CountermarkError:  # of another version of this program
        return None


def _changed(old: Bundle | None, new: Bundle | None) -> list[Child]:
    """What a policy says other than the one before it, and until when it only monitors."""
    if new is None:
        return ["cannot be read by this version"]
    lines = [] if old is None else list(bundle_changes(old, new)["words"])
    if old is None:
        lines = [f"tool {tool.name} only monitored until {utc(tool.monitor)}"
                 for tool in new.compiled.tools.values() if tool.monitor is not None]  # fmt: skip
    first = ["the first policy in this pack"] if old is None else []
    shown = [*first, *lines[:CHANGES_MAX]] or ["nothing that it compiles to"]
    more = f"; and {len(lines) - CHANGES_MAX:,} more" if len(lines) > CHANGES_MAX else None
    return [short("; ".join(shown)), more]


def people(found: Gathered, shown: set[int], *, acted: bool = True) -> Html:
    rows: list[list[Child | list[Child]]] = []
    newest = found.bundles.get(found.policies[-1].body["activation"]["bundle"]) if found.policies else None
    gave = {"approve": 0, "refuse": 0}
    by: dict[str, dict[str, int]] = {}
    for record in found.answers:
        approval = record.body["approval"]
        by.setdefault(approval["person"], dict(gave))[approval["verdict"]] += 1
    for person in newest["compiled"]["people"] if newest is not None else ():
        given = by.pop(person["id"], gave)
        rows.append([short(person["id"]), short(person["name"]), short(", ".join(person["roles"])),
                     f"{given['approve']:,}", f"{given['refuse']:,}"])  # fmt: skip
    rows += [[short(name), "not in the newest policy", "", f"{given['approve']:,}", f"{given['refuse']:,}"]
             for name, given in by.items()]  # fmt: skip
    answers: list[list[Child | list[Child]]] = []
    for record in found.answers[:LISTED_MAX]:
        body, approval = record.body, record.body["approval"]
        line = found.population.lines.get(body["id"])
        about = link(line.seq, shown) if line is not None else "unknown"
        amount = "" if body["terms"]["amount"] is None else money(body["terms"]["amount"], body["terms"]["currency"])
        answers.append([f"#{record.seq}", both(record.at, found.zone), short(approval["person"]), approval["verdict"],
                        about, amount, short(approval["ladder"]), short(", ".join(approval["ids"]))])  # fmt: skip
    return section(
        "people", "People and their answers",
        table(("id", "name", "roles", "approved", "refused") if acted else ("id", "name", "roles"),
              rows if acted else [row[:3] for row in rows], "People of the newest policy"),
        table(("record", "when", "who", "verdict", "action", "amount", "ladder", "rules"), answers, "Answers")
        if answers else tag("p", "Nobody was asked and answered." if acted else "Answers: not in this pack."),
        tag("p", f"The first {LISTED_MAX} answers are listed; population.csv has all of them.")
        if len(found.answers) > LISTED_MAX else None,
    )  # fmt: skip
