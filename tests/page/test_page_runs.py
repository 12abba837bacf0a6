"""The page of a pack draws each run of a definition on its definition, readable without scripts, inside its policy."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "console"))

from browser import DESK, SMALL, Tab, chromium, needs_chromium
from flow_rig import pay, run_it, three_steps
from rig import Provider, hold, make

from countermark.audit import export_pack
from countermark.audit.page import flows
from countermark.journal import SqliteStore
from countermark.wiring import load_config, log_signer

HOSTILE = "<b onclick='x'>\u202egood</b>"


def flow() -> dict[str, Any]:
    found = three_steps()
    never = {**pay("never"), "if": "false", "name": HOSTILE}
    found["jobs"][0]["steps"].append(never)
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, provider = tmp_path_factory.mktemp("page"), Provider(["refused"])
    made = make(folder / "d", provider)
    config = load_config(made.root)
    with hold(made.root, provider) as handle:
        for number in range(3):
            run_it(handle, flow(), amount=40, invoice=f"INV-{number}")
    with closing(SqliteStore(config.journal, readonly=True)) as store:
        pack = export_pack(folder / "p.zip", store, log_signer(config), deployment=made.deployment)
    with ZipFile(pack.path) as archive:
        archive.extract("index.html", folder)
    return folder / "index.html"


def test_every_run_is_drawn_on_its_definition(page: Path) -> None:
    """What failed, what succeeded and what was not run, in words; the action that is drawn there is not drawn twice."""
    html = page.read_text("utf-8")
    drawings = re.findall(r'<svg[^>]*class="wf".*?</svg>', html, re.DOTALL)
    assert len(drawings) == 3
    assert "✗ failure: provider_refused" in drawings[0]
    assert "✓ success" in drawings[1]
    assert all("– skipped" in one for one in drawings)
    assert html.count("Above, what the policy looked for") == 0
    assert not re.search(r"style=|onclick='|\u202e", "".join(drawings))


def test_more_runs_than_there_is_room_for_are_counted(monkeypatch: pytest.MonkeyPatch, page: Path) -> None:
    """The page says how many it does not draw."""
    monkeypatch.setattr(flows, "RUNS_MAX", 2)
    with closing(SqliteStore(page.parent / "d" / "data" / "journal.db", readonly=True)) as store:
        found = flows.flows_of([raw for _, raw in store.raw()])
    assert (len(found.figures), found.left) == (2, 1)
    assert "1 run is not drawn for want of room" in "".join(found.section())


@needs_chromium
@pytest.mark.slow
def test_it_is_read_with_scripts_off(page: Path) -> None:
    """On a desk and on a phone, light and dark: the drawings are there, and the page's policy refuses nothing."""
    with chromium() as browser:
        for size, scheme in ((DESK, "light"), (SMALL, "dark")):
            tab = Tab(browser, size, scheme)
            tab.page.goto(page.as_uri())
            figure = tab.page.locator("svg.wf").first
            figure.scroll_into_view_if_needed()
            assert figure.bounding_box() is not None
            tab.shot(f"pack-runs-{size[0]}-{scheme}", full=False)
            assert tab.complaints == []
            assert tab.wide() == 0
            tab.close()
        context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
        plain = context.new_page()
        plain.goto(page.as_uri())
        assert plain.locator("svg.wf").count() == 3
        assert plain.get_by_text("provider_refused").first.is_visible()
        context.close()
