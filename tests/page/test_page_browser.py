"""The page in Chromium, from a file: readable without scripts, quiet, and a verdict that fits the pack."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "console"))

from browser import DESK, PHONE, SMALL, Tab, chromium, needs_axe, needs_chromium
from page_hostile import PAYLOAD, hostile_members
from page_packs import Pack, the_pack
from test_page_node import EXPECTED, FILES, wanted

from countermark.model.words import escaped

pytestmark = [needs_chromium, pytest.mark.slow]
# A few of each step that the page takes whole; Node runs all vectors through the same code.
SAMPLE = (
    "empty-zip.zip", "record-not-canonical.zip", "record-duplicate-key.zip", "stream-gap.zip", "prev-broken.zip",
    "rewritten-located-by-leaf-hashes.zip", "checkpoint-foreign-key.zip", "approval-foreign-key.zip",
    "effect-without-intent.zip", "honest-witnessed.zip", "honest-people-with-new-keys.zip",
    "enrolment-with-an-assertion-altered.zip", "witness-quorum-short.zip", "honest-restored-twice.zip",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The day's pack as files: the page taken out of it, the pack, and what an auditor trusts."""
    found, day = tmp_path_factory.mktemp("pack"), the_pack()
    (found / "index.html").write_bytes(day.members["index.html"])
    (found / "pack.zip").write_bytes(day.raw)
    (found / "trust.json").write_bytes(day.trust_raw)
    (found / "relied.json").write_bytes(day.relied_raw)
    return found


class Opened:
    """A page opened from a file, and everything that it asked the network for."""

    def __init__(self, browser: Any, page: Path, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
        self.tab = Tab(browser, size, scheme)
        self.asked: list[str] = []
        self.tab.page.on("request", lambda request: self.asked.append(request.url))
        self.tab.page.goto(page.as_uri())

    def check(self, pack: Path, trust: Path | None) -> str:
        """Choose the files and press the button; answers the verdict."""
        page = self.tab.page
        page.locator("#pack").set_input_files(pack)
        page.locator("#trust").set_input_files([trust] if trust is not None else [])
        page.get_by_role("button", name="Check").click()
        page.locator("#go:not([disabled])").wait_for()
        return str(page.locator("#verdict > b").inner_text())

    def codes(self) -> list[str]:
        found = self.tab.page.evaluate("countermarkReport.steps.flatMap(s => s.findings.map(f => f.code))")
        return [str(code) for code in found]

    def quiet(self) -> None:
        """Nothing that the browser said, and no request but for the file itself."""
        assert self.tab.complaints == []
        assert len(self.asked) == 1
        assert self.asked[0].startswith("file:")


def test_it_is_read_with_scripts_off(browser: Any, folder: Path) -> None:
    """Sections, figures and timeline are there; the check says that it needs scripts, and offers no button."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "index.html").as_uri())
    said = page.locator("body").inner_text()
    for words in ("Question and scope", "8,892.00 EUR", "What cannot be established", "Scripts are off"):
        assert words in said
    assert not page.get_by_role("button", name="Check").is_visible()
    context.close()


def test_a_good_pack_is_verified_and_a_changed_one_refuted(browser: Any, folder: Path, tmp_path: Path) -> None:
    """Verified only where the auditor relies on the whole log; else incomplete, and it says what holds all the same;
    with a changed line refuted. The network is never asked."""
    opened = Opened(browser, folder / "index.html")
    assert opened.check(folder / "pack.zip", None) == "INCOMPLETE"
    assert opened.check(folder / "pack.zip", folder / "trust.json") == "INCOMPLETE"
    assert opened.codes() == ["V13.browser", "V14.browser"]
    said = opened.tab.page.locator("#verdict").inner_text()
    assert "everything that a browser can check holds" in said
    assert opened.tab.page.locator(".established .good").count() == 7
    assert opened.check(folder / "pack.zip", folder / "relied.json") == "VERIFIED"
    assert opened.tab.page.locator("#report tbody tr").count() == 21
    assert "facts and budgets were not computed again" in opened.tab.page.locator("#report").inner_text()
    line = the_pack().members["population.csv"].replace(b",48000,", b",47000,", 1)
    other = the_pack().write(tmp_path / "line.zip", {"population.csv": line})
    assert opened.check(other, folder / "trust.json") == "REFUTED"
    assert "V15.population" in opened.codes()
    assert opened.check(folder / "trust.json", folder / "trust.json") == "UNREADABLE"
    assert opened.check(folder / "pack.zip", folder / "pack.zip") == "NO TRUST"
    opened.quiet()


def test_files_are_dropped_onto_the_page(browser: Any, folder: Path) -> None:
    """Both files at once, anywhere."""
    opened = Opened(browser, folder / "index.html")
    page = opened.tab.page
    page.evaluate("""() => { const input = document.createElement('input'); input.type = 'file'; input.multiple = true;
        input.id = 'both'; input.setAttribute('aria-label', 'both'); document.body.append(input); }""")
    page.locator("#both").set_input_files([folder / "pack.zip", folder / "trust.json"])
    page.evaluate("""() => { const data = new DataTransfer();
        for (const file of document.getElementById('both').files) data.items.add(file);
        document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})); }""")
    page.locator("#verdict > b", has_text="INCOMPLETE").wait_for()
    opened.quiet()


def test_a_page_with_other_figures_is_not_shown(browser: Any, folder: Path, tmp_path: Path) -> None:
    """A visible sum that differs from the page's own figures, and figures that differ from the records."""
    day: Pack = the_pack()
    good = day.members["index.html"]
    seen = good.replace(b">8,892.00 EUR<", b">8,892.01 EUR<", 1)
    (tmp_path / "seen.html").write_bytes(seen)
    opened = Opened(browser, tmp_path / "seen.html")
    assert opened.tab.page.locator("section").count() == 1
    assert "not shown any more" in opened.tab.page.locator("main").inner_text()
    both = seen.replace(b'"totals":[["eur","889200"]]', b'"totals":[["eur","889201"]]', 1)
    (tmp_path / "both.html").write_bytes(both)
    opened = Opened(browser, tmp_path / "both.html")
    assert opened.tab.page.locator("section").count() == 11
    opened.check(folder / "pack.zip", folder / "trust.json")
    assert opened.tab.page.locator("section").count() == 1
    opened = Opened(browser, folder / "index.html")
    assert opened.check(day.write(tmp_path / "p.zip", {"index.html": seen}), folder / "relied.json") == "VERIFIED"
    assert "shows figures that its records do not give" in opened.tab.page.locator("main").inner_text()


def test_hostile_records_stay_text(browser: Any, tmp_path: Path) -> None:
    """No script of theirs runs, no image is asked for, and the attack can be read."""
    (tmp_path / "hostile.html").write_bytes(hostile_members()["index.html"])
    opened = Opened(browser, tmp_path / "hostile.html")
    opened.tab.page.on("dialog", lambda dialog: opened.asked.append("dialog"))
    assert escaped(PAYLOAD) in opened.tab.page.locator("main").inner_text()
    assert opened.tab.page.locator("img, iframe, [onload], [onerror]").count() == 0
    assert opened.tab.wide() == 0
    opened.quiet()


@needs_axe
@pytest.mark.parametrize(("size", "scheme"), [(SMALL, "light"), (PHONE, "dark"), (DESK, "dark")])
def test_axe_finds_nothing(browser: Any, folder: Path, size: tuple[int, int], scheme: str) -> None:
    """With the report on the page, in light and dark, on every screen, and without scrolling sideways."""
    opened = Opened(browser, folder / "index.html", size, scheme)
    opened.check(folder / "pack.zip", folder / "trust.json")
    opened.tab.check()
    opened.tab.shot(f"page-{size[0]}-{scheme}", full=False)


def test_vectors_get_the_same_verdicts_as_from_node(browser: Any, folder: Path) -> None:
    """One session, another pack and trust file each time: verdict and code are those expected."""
    opened = Opened(browser, folder / "index.html")
    for name in SAMPLE:
        row = EXPECTED[name]
        verdict = opened.check(FILES / name, FILES / row["trust"]).lower()
        expected = [row["verdict"]] if isinstance(row["verdict"], str) else row["verdict"]
        if expected == ["verified"]:
            assert verdict == "incomplete", name
            assert all(code.endswith(".browser") for code in opened.codes()), name
            continue
        assert verdict in expected, (name, opened.codes())
        assert not any(code.startswith(("V12", "V13", "V14")) for code in wanted(name)), name
        codes = opened.codes()
        assert not wanted(name) or any(c == w or c.startswith(f"{w}.") for c in codes for w in wanted(name)), name
    assert opened.tab.complaints == []
