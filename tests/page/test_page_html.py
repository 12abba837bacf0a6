"""`index.html` as text: escaping, determinism, bounds, and the three kinds of absence."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from page_hostile import PAYLOAD, hostile_members
from page_packs import page_text, the_pack

from countermark.audit import script_digest
from countermark.audit.page import PAGE_BYTES_MAX, Shown, for_people, sections, timeline
from countermark.audit.page.gather import Gathered
from countermark.audit.page.markup import tag
from countermark.model.records import Record
from countermark.model.words import escaped

_TAGS = frozenset((
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "nav", "ul", "li", "a", "main",
    "section", "code", "div", "label", "input", "button", "dl", "dt", "dd", "b", "i", "span", "time", "table",
    "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg", "path", "rect", "text", "article",
    "script",
))  # fmt: skip
_ATTRIBUTES = frozenset((
    "lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "for", "type", "accept", "hidden",
    "role", "aria-label", "aria-labelledby", "aria-live", "tabindex", "scope", "data-figure", "data-sum", "viewbox",
    "width", "height", "x", "y", "rx", "d",
))  # fmt: skip


class _Strict(HTMLParser):
    """Collects what stands in a page; anything unknown is a fault."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.faults += [tag] if tag not in _TAGS else []
        self.faults += [f"{tag}.{name}" for name, _ in attrs if name not in _ATTRIBUTES]
        links = [value or "" for name, value in attrs if name == "href"]
        self.faults += [link for link in links if not re.fullmatch(r"#[a-z0-9-]+", link)]
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.faults.append("comment")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def read(page: str) -> _Strict:
    parser = _Strict()
    parser.feed(page)
    parser.close()
    return parser


def test_text_becomes_markup_in_one_place() -> None:
    """Elements escape their children and their attributes, and spell out what could not be seen."""
    made = tag("p", "<b>", "a\u202eb", tag("b", "&"), cls='"><i>')
    assert made == '<p class="&quot;&gt;&lt;i&gt;">&lt;b&gt;a\\u202eb<b>&amp;</b></p>'


def test_hostile_text_in_every_field_stays_text() -> None:
    """Elements, attributes and links are ours alone, whatever the records say; the attack is there to be read."""
    page = hostile_members()["index.html"].decode("utf-8")
    parsed = read(page)
    assert parsed.faults == []
    assert parsed.open == []
    whole = "".join(parsed.text)
    assert whole.count(escaped(PAYLOAD)) > 40
    assert "\u202e" not in page.split("<script>")[0]
    assert page.count("<script") - page.split("<script>", 1)[1].count("<script") == 2


def test_an_ordinary_page_is_well_formed() -> None:
    """The page of a day: known elements only, and each one closed."""
    day = the_pack()
    page = page_text(day.members)
    parsed = read(page)
    assert (parsed.faults, parsed.open) == ([], [])
    assert len(page.encode()) < PAGE_BYTES_MAX


def test_the_policy_allows_this_script_and_this_style_sheet_only() -> None:
    """The hashes in the page's policy are those of what stands in it; nothing else may run, load or be sent."""
    page = page_text(the_pack().members)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    said = dict(part.split(" ", 1) for part in policy[1].replace("&#x27;", "'").split("; "))
    script = page.split("<script>", 1)[1].rsplit("</script>", 1)[0]
    style = page.split("<style>", 1)[1].split("</style>", 1)[0]

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert said.pop("script-src") == hashed(script)
    assert said.pop("style-src") == hashed(style)
    assert set(said.values()) == {"'none'"}
    assert {"default-src", "connect-src", "img-src", "base-uri", "form-action"} == set(said)
    assert script_digest() == f"sha256:{hashlib.sha256(script.encode()).hexdigest()}"


def test_withheld_erased_and_never_recorded_differ() -> None:
    """Each has its own word and its own frame; what is disclosed is shown as such."""
    page = hostile_members()["index.html"].decode("utf-8")
    article = page.split('id="seq-6"', 1)[1].split("</article>", 1)[0]
    assert '<span class="erased">erased</span>' in article
    assert "(disclosed)" in article
    day = page_text(the_pack().members)
    assert '<span class="withheld">withheld</span>' in day.split('id="seq-6"', 1)[1].split("</article>", 1)[0]
    assert '<span class="absent">not recorded</span>' in day


def test_a_long_timeline_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is counted; the population has every line all the same."""
    day = the_pack()
    monkeypatch.setattr(timeline, "TIMELINE_BYTES_MAX", 5_000)
    made = for_people(day.records(), {}, Shown(withheld=4), origin=day.signer.name, root="x" * 43 + "=")
    page = made["index.html"].decode("utf-8")
    shown = page.count("<article")
    assert 0 < shown < 8
    assert f"{16 - shown:,} further actions do not fit here" in page
    assert made["population.csv"].count(b"\r\n") == 17


def test_the_page_says_what_an_auditor_asks_in_order() -> None:
    """The sections stand in the order of the work, and what cannot be established is derived from the pack."""
    page = page_text(the_pack().members)
    names = re.findall(r'<section id="([a-z]+)"', page)
    assert names == ["check", "question", "whose", "population", "exceptions", "gaps", "limits", "policy", "people",
                     "paths", "timeline"]  # fmt: skip
    limits = page.split('id="limits"', 1)[1].split("</section>", 1)[0]
    for said in ("1 action with an unknown outcome", "4 sensitive values withheld", "no witness signed this head",
                 "no time stamp and no anchor", "Anything after record 42", "16 of 16 actions"):  # fmt: skip
        assert said in limits
    told = "".join(read(page).text)
    assert "8,892.00 EUR" in told
    assert "3 Nov 2026, 10:00:30 UTC (11:00:30 in Europe/Berlin)" in told


def test_orders_are_not_hidden_behind_publications() -> None:
    """Records that the log makes of itself, one a second, are no orders; a legal hold is one that an auditor reads."""
    found = Gathered(1, {})
    for seq, kind in enumerate(["head.witnessed", "head.stamped", "anchor.published", "epoch.closed", "hold.set"]):
        found.add(Record(seq, kind, seq, "gate", {}, "", {}, b"", ""))
    assert [record.kind for record in found.orders] == ["hold.set"]
    assert [what for _, _, what, _ in found.exceptions] == ["a legal hold was set"]


def test_facts_are_said_in_words_as_explain_says_them() -> None:
    """Money, times and yes or no, not the recorded numbers; and the tiers are explained."""
    page = page_text(the_pack().members)
    facts = re.findall(r"<dt>facts</dt><dd>(.*?)</dd>", page)
    assert "day_total 480.00 EUR; hour_count 1; instructed nobody; local_minute 11:00" in facts[0]
    assert "payee_details known" not in page
    assert "the check below" not in page
    assert "embedded: the gate ran inside the calling program" in page


def test_the_history_of_the_policy_says_what_each_one_changed() -> None:
    """The words of `policy diff`, and the end of a monitoring window as a time."""
    members = the_pack().members
    document = json.loads(next(raw for name, raw in members.items() if name.startswith("policy/")))
    old = sections._read(document)
    changed = deepcopy(document)
    changed["compiled"]["limits"]["payment_max"] += 100
    changed["compiled"]["tools"][0]["monitor"] = 1_796_925_600_000_000
    said = "".join(str(part) for part in sections._changed(old, sections._read(changed)) if part)
    assert "limit payment_max: " in said
    assert "monitor none -&gt; until 10 Dec 2026, 18:00:00 UTC" in said or "monitor none -> until 10 Dec 2026, " in said
    first = "".join(str(part) for part in sections._changed(None, sections._read(changed)) if part)
    assert first.startswith("the first policy in this pack; tool ")
    assert "only monitored until 10 Dec 2026, " in first


def test_what_runs_do_by_themselves_is_no_order() -> None:
    """A pure step is no order of a person; a definition is named apart."""
    found = Gathered(9, {})
    for seq, kind in enumerate(("compute.executed", "step.waiting", "workflow.defined", "payee.changed")):
        body = {"document": {"name": "refund"}} if kind == "workflow.defined" else {"change": {}}
        found.add(Record(seq, kind, seq, "gate", {}, "", body, b"", ""))
    assert [record.kind for record in found.orders] == ["payee.changed"]
    assert "Definitions of workflows that were recorded, of whatever use here: refund (#2)." in sections.exceptions(
        found, set()
    )
