"""``index.html`` and ``population.csv`` of a pack: what people open (``docs/evidence-pack.md``).

The page is made of records that agents wrote: see ``markup``. It carries its own check, ``verify.js``, under a policy
that allows that script, that style sheet and nothing else, and no network at all.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from countermark.audit.page import limits, scoped, sections
from countermark.audit.page.figures import figures
from countermark.audit.page.flows import Flows, flows_of
from countermark.audit.page.gather import Gathered
from countermark.audit.page.markup import Html, inside, tag
from countermark.audit.page.paths import RUNS_MAX, drawn
from countermark.audit.page.timeline import ABSENT, ERASED, WITHHELD, Timeline
from countermark.audit.zipped import POPULATION
from countermark.model.canon import canon
from countermark.model.records import read

__all__ = ["ACTIONS_MAX", "PAGE", "PAGE_BYTES_MAX", "POPULATION", "Shown", "for_people", "script_digest"]

PAGE = "index.html"
ACTIONS_MAX = 2_000  # in the timeline, if there is room for so many
PAGE_BYTES_MAX = 2 << 20
FIGURES_BYTES_MAX = 1 << 20


class Shown:
    """What a pack discloses: the values, how many there are of each sort, and which are gone."""

    def __init__(
        self, fields: Sequence[Mapping[str, Any]] = (), *, withheld: int = 0, erased: int = 0,
        gone: Collection[tuple[int, str]] = (),
    ) -> None:  # fmt: skip
        self.values = {(row["seq"], row["alias"]): row["value"] for row in fields}
        self.withheld, self.erased, self.gone = withheld, erased, frozenset(gone)


def for_people(
    records: Sequence[bytes], bundles: Mapping[str, Mapping[str, Any]], shown: Shown, *, origin: str, root: str,
    signers: Sequence[str] = (), size: int | None = None, scope: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """The two members for people. The same records and disclosure give the same bytes.

    Args:
        records: canonical bytes from seq 0, or those that an extract has.
        bundles: digest -> document, of each policy that the records activate.
        root: of the head, base64; ``signers`` are the names on its signature lines.
        size, scope: of an extract, the head's size and the predicate's scope.
    """
    found = Gathered(ACTIONS_MAX, bundles)
    for raw in records:
        found.add(read(raw))
    said = figures(
        found, origin=origin, size=len(records) if size is None else size, root=root, withheld=shown.withheld,
        erased=shown.erased, disclosed=len(shown.values), scope=scope,
    )  # fmt: skip
    page = _page(found, said, shown, list(signers), flows_of(records, scope))
    return {PAGE: page.encode("utf-8"), POPULATION: found.population.csv()}


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode('utf-8')).digest()).decode()}'"


def script_digest() -> str:
    """``sha256:`` and hex of the script that checks packs: the same in every page of this version."""
    return f"sha256:{sha256(_asset('verify.js').encode('utf-8')).hexdigest()}"


def _policy() -> str:
    return (
        f"default-src 'none'; script-src {_hash(_asset('verify.js'))}; style-src {_hash(_asset('page.css'))}; "
        "connect-src 'none'; img-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _page(found: Gathered, said: dict[str, Any], shown: Shown, signers: list[str], flows: Flows) -> str:
    line = Timeline(found, shown.values, shown.gone)
    articles = list(line.articles())
    seqs = {found.actions[name].seq for name in line.shown}
    figure, more, plain = drawn(found, line.shown, flows.runs)
    cosigned = len([name for name in signers if name != said["origin"]])
    acted = not scoped.beginnings(said)
    title = f"Evidence pack of {found.deployment}"
    body = inside(
        tag("header", tag("h1", title),
            tag("p", _which(said), said["origin"], cls="soft"),
            tag("p", "This page came with the pack. It is for reading, and it cannot vouch for itself: what it shows "
                "is evidence once the pack is checked against a trust file of your own.", cls="notice"), _contents()),
        tag("main",
            _check(), (scoped if "scope" in said else sections).question(found, said),
            sections.whose(found, said, signers),
            sections.counts(found, said, acted=acted),
            sections.exceptions(found, seqs, acted=acted), sections.gaps(found, said, seqs, acted=acted),
            sections.section("limits", "What cannot be established", tag("ul", [
                tag("li", one) for one in limits.cannot_be_established(found, said, cosigned)])),
            sections.policies(found), sections.people(found, seqs, acted=acted),
            _paths(figure, more, plain, flows),
            _timeline(articles, line.left) if acted
            else sections.section("timeline", "Timeline", tag("p", sections.NOT_HERE)), id="told"),
    )  # fmt: skip
    return (
        "<!doctype html>\n"
        + tag("html", tag("head", tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=Html(_policy())),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="referrer", content="no-referrer"), tag("title", title),
            tag("style", Html(_asset("page.css")))),
            tag("body", body, Html(_figures_block(said)), tag("script", Html(_asset("verify.js")))), lang="en")
        + "\n"
    )  # fmt: skip


def _which(said: dict[str, Any]) -> str:
    if "scope" in said:
        return f"An extract: {sum(said['kinds'].values()):,} of the {said['size']:,} records of "
    return f"Records 0 to {said['size'] - 1:,} of "


def _figures_block(said: dict[str, Any]) -> str:
    """For programs: canonical, but for the one sign that could end the element, which stands only within strings."""
    raw = canon(said, bytes_max=FIGURES_BYTES_MAX).decode("utf-8").replace("<", "\\u003c")
    return f'<script type="application/json" id="figures">{raw}</script>'


def _contents() -> Html:
    names = (
        ("check", "Check it"), ("question", "Scope"), ("whose", "Whose"), ("population", "Population"),
        ("exceptions", "Exceptions"), ("gaps", "Gaps"), ("limits", "Cannot be established"), ("policy", "Policy"),
        ("people", "People"), ("paths", "Paths"), ("timeline", "Timeline"),
    )  # fmt: skip
    return tag(
        "nav", tag("ul", [tag("li", tag("a", title, href=f"#{name}")) for name, title in names]), aria_label="Sections"
    )


def _check() -> Html:
    return sections.section(
        "check", "Check this pack",
        tag("p", "With ", tag("code", "countermark-verify PACK --trust FILE"), ", which shares no code with the gate "
            "and makes the decisions again; or here, as far as a browser can, without a network."),
        tag("p", "A page that came with a pack could have been altered with it. For independence take the script from "
            "elsewhere: any copy whose digest is the one that ", tag("code", "countermark verify --page-digest"),
            " prints can check any pack."),
        tag("p", "Scripts are off: this page is for reading only. Use countermark-verify.", cls="notice",
            id="no-scripts"),
        tag("div",
            tag("p", tag("label", "The pack (a zip file)", for_="pack"),
                tag("input", type="file", id="pack", accept=".zip")),
            tag("p", tag("label", "Your trust file (JSON, never from the pack)", for_="trust"),
                tag("input", type="file", id="trust", accept=".json")),
            tag("p", tag("button", "Check", type="button", id="go"), " or drop both files anywhere on this page."),
            id="tools", hidden=True),
        tag("div", id="verdict", role="status", aria_live="polite"),
        tag("div", id="report"),
    )  # fmt: skip


def _paths(figure: list[Html], more: int, plain: int, flows: Flows) -> Html:
    return sections.section(
        "paths", "Planned and actual path",
        tag("p", "Planned is what the policy in force looked for before an action, as its decision records it: earlier "
            "outcomes that it read, and people that it asked. A rule that was written later is held against these "
            "records by ", tag("code", "countermark audit paths"), "."),
        *flows.section(), *figure,
        tag("p", f"{more:,} more runs are not drawn: the first {RUNS_MAX} are.") if more else None,
        tag("p", f"{plain:,} runs of a single action that nothing was required for are not drawn.") if plain else None,
        None if figure or plain or more or list(flows.section()) else tag("p", "There are no actions."),
    )  # fmt: skip


def _timeline(articles: list[Html], left: int) -> Html:
    return sections.section(
        "timeline", "Timeline",
        tag("p", "Values that look like this are not all the same: ", WITHHELD, " is sealed, and whoever made this "
            "pack does not show it; ", ERASED, " is sealed, and its key is gone; ", ABSENT, " was never there."),
        *articles,
        tag("p", f"{left:,} further actions do not fit here. population.csv has every action, and the records have all "
            "that is known of each.", cls="notice") if left else None,
    )  # fmt: skip
