"""The pages of runs: what is open and what ended, one run drawn on its definition, live, and nothing to press."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow"))

from browser import DESK, PHONE, Tab, chromium, needs_chromium
from flow_rig import ADD, an_input, document, job, pay, ref, run_it, step
from stage import Stage
from visitor import text_of

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "d") as found:
        yield found


def flow() -> dict[str, Any]:
    """Check three things, pay, wait for the bank, then close the books."""
    check = step("pure", "check", code=ADD, with_={"amount": ref("inputs.amount")}, outputs={"amount": "int"})
    bank = step("wait", "bank", for_={"kind": "event", "source": "bank", "key": ref("inputs.invoice")})
    return document(
        job("check", {**check, "name": HOSTILE}, matrix=[["part", [1, 2, 3]]]),
        job("payment", pay(invoice=ref("inputs.invoice"), amount=1000), bank, needs=["check"]),
        job("books", step("pure", "close", code=ADD, with_={"amount": 1}, outputs={"amount": "int"}),
            needs=["payment"]),
        name="pay-and-close", inputs={"amount": an_input(), "invoice": an_input("string")},
    )  # fmt: skip


def started(stage: Stage, invoice: str) -> str:
    run: str = run_it(stage.handle, flow(), amount=5, invoice=invoice)["run"]
    return run


def arrived(stage: Stage, run: str, invoice: str) -> None:
    """The bank says that it was paid, and the run goes on to its end."""
    stage.handle.call("event.received", {
        "source": "bank", "event": invoice, "key": invoice, "payload": None, "digest": "sha256:" + "0" * 64,
        "scheme": "test", "evidence": None,
    })  # fmt: skip
    while stage.handle.call("workflow.drive", {"run": run})["status"] in ("running", "waiting"):
        pass


def test_open_and_ended_runs_are_listed(stage: Stage) -> None:
    """By name too; without any the page says so."""
    visitor = stage.visitor("controller")
    assert "No runs" in text_of(visitor.get("/runs"))
    first, second = started(stage, "A-1"), started(stage, "A-2")
    arrived(stage, first, "A-1")
    page = text_of(visitor.get("/runs"))
    assert page.index(second) < page.index("Ended last") < page.index(first)
    assert first not in text_of(visitor.get("/runs?name=another"))
    assert visitor.get("/runs/run_" + "0" * 32).status == 404
    assert visitor.get("/runs/nothing").status in (400, 404)


def test_a_run_is_drawn_and_what_was_seen_is_not_sent_again(stage: Stage) -> None:
    """What the definition plans and what happened; the part answers 204 until something happens."""
    run = started(stage, "B-1")
    visitor = stage.visitor("controller")
    page = text_of(visitor.get(f"/runs/{run}"))
    assert "<svg" in page
    assert "✓ 3 of 3: success" in page
    assert HOSTILE.encode() not in visitor.get(f"/runs/{run}").body
    (target,) = re.findall(r'hx-get="(/runs/run_[^"]*)"', page)
    assert visitor.poll(target).status == 204
    arrived(stage, run, "B-1")
    fresh = visitor.poll(target)
    assert fresh.status == 200
    assert "hx-get" not in text_of(fresh)  # it is over: nothing more will happen


def test_nothing_can_be_pressed(stage: Stage) -> None:
    """The pages have no form and no button but the one to sign out, and are for nobody who is not signed in."""
    run = started(stage, "C-1")
    for path in ("/runs", f"/runs/{run}"):
        main = text_of(stage.visitor("controller").get(path)).partition("<main")[2]
        assert "<form" not in main
        assert "<button" not in main
        assert stage.visitor().get(path).status == 303


@needs_chromium
@pytest.mark.slow
def test_a_run_is_drawn_live(stage: Stage) -> None:
    """In the browser: the drawing changes by itself when the bank answers; no complaint, no sideways scrolling."""
    done, run = started(stage, "D-0"), started(stage, "D-1")
    arrived(stage, done, "D-0")
    with chromium() as browser:
        for size, scheme in ((DESK, "light"), (PHONE, "dark")):
            tab = Tab(browser, size, scheme)
            tab.plug_in(stage.passkeys["controller"], "controller")
            tab.sign_in(stage.console, "controller")
            for name, path in (("runs", "/runs"), ("run-open", f"/runs/{run}"), ("run-over", f"/runs/{done}")):
                tab.page.goto(stage.console + path)
                tab.shot(f"{name}-{size[0]}-{scheme}")
                tab.check()
        tab.page.goto(f"{stage.console}/runs/{run}")
        arrived(stage, run, "D-1")
        tab.page.locator("svg").get_by_text("✓ success").nth(2).wait_for()
        tab.check()
