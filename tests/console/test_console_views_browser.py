"""The pages that show things, in Chromium: signing an order, sending a pack, and what axe says about each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from browser import DESK, PHONE, SMALL, Tab, chromium, needs_axe, needs_chromium
from rig import pay
from stage import Stage
from test_console_browser import looked_at, signed_in

from countermark.authority import build_approval, sign_approval

pytestmark = needs_chromium
AUDITOR = {'[people.chief]\nname = "Farah Chief"\nroles = ["chief"]': '[people.chief]\nname = "Farah Chief"\n'
           'roles = ["chief", "auditor", "operator"]'}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "d", changes=AUDITOR) as found:
        yield found


@pytest.mark.slow
def test_a_stop_is_lifted_by_a_passkey_on_a_phone(browser: Any, stage: Stage) -> None:
    """Stop an agent with a reason, see it stopped, lift it with the passkey; the browser complains of nothing."""
    tab = signed_in(browser, stage)
    tab.page.get_by_role("link", name="Agents").click()
    tab.page.get_by_text("Stop something").click()
    tab.page.locator("#why-agent").fill("looks odd")
    tab.page.get_by_role("button", name="Stop this agent").click()
    tab.page.get_by_text("Stopped. No new effect of it starts any more.").wait_for()
    assert pay(stage.handle, 1, 1_000).code == "killed"
    tab.page.get_by_text("Lift this stop").click()
    tab.page.get_by_label("Why it may go on").fill("checked with the vendor")
    tab.page.get_by_role("button", name="Go on to signing").click()
    tab.shot("order-phone")
    tab.page.get_by_role("button", name="Sign with your passkey").click()
    tab.page.get_by_text("The stop is lifted, with your signature.").wait_for()
    assert pay(stage.handle, 2, 1_000).status == "confirmed"
    assert tab.wide() == 0
    assert tab.complaints == []


@pytest.mark.slow
def test_a_pack_is_taken_and_sent_back(browser: Any, stage: Stage, tmp_path: Path) -> None:
    """An auditor makes a pack, downloads it, and chooses it as the file to check; the verifier's answer appears."""
    pay(stage.handle, 1, 48_000)
    tab = signed_in(browser, stage, DESK, "chief")
    tab.page.goto(stage.console + "/evidence")
    tab.page.get_by_role("button", name="Make the pack").click()
    with tab.page.expect_download() as download:
        tab.page.locator("#pack-made a").click()
    path = tmp_path / "pack.zip"
    download.value.save_as(path)
    tab.page.locator("#pack").set_input_files(path)
    tab.page.get_by_role("button", name="Check", exact=True).click()
    tab.page.locator("#verdict").get_by_text("INCOMPLETE", exact=True).wait_for()
    tab.shot("evidence-checked")
    assert tab.page.locator("#verdict tbody tr").count() == 21
    path.write_bytes(b"no zip")
    tab.page.locator("#pack").set_input_files(path)
    tab.page.get_by_role("button", name="Check", exact=True).click()
    tab.page.locator("#verdict").get_by_text("UNREADABLE", exact=True).wait_for()
    assert tab.complaints == []


@pytest.mark.slow
def test_a_filter_works_from_the_keyboard(browser: Any, stage: Stage) -> None:
    """Open the filter, type a reference, press Enter, go to the payment: without a mouse."""
    for number in (1, 2, 3):
        pay(stage.handle, number, 1_000)
    tab = signed_in(browser, stage, DESK)
    tab.page.goto(stage.console + "/payments")
    tab.page.locator("summary").first.focus()
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.type("inv-2")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**text=inv-2**")
    assert tab.page.locator(".question").count() == 1
    tab.page.locator(".question a").focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/payments/act_*")
    assert "INV-2" in tab.page.locator("main").inner_text()
    assert tab.complaints == []


@pytest.mark.slow
def test_health_refreshes_and_what_is_unknown_appears(browser: Any, stage: Stage) -> None:
    """The page shows an unknown outcome by itself, a moment after it happened."""
    tab = signed_in(browser, stage, DESK)
    tab.page.goto(stage.console + "/health")
    stage.provider.script.extend(["lost_before"] * 50)
    stage.provider.lookup_says = "timeout"
    pay(stage.handle, 1, 48_000)
    tab.page.get_by_text("Unknown outcomes").wait_for()
    assert tab.complaints == []


def busy_day(stage: Stage) -> dict[str, str]:
    """One of everything, and the pages that show it."""
    done = pay(stage.handle, 1, 48_000, reason="Invoice 1, <b>due</b> \u202e tomorrow")
    pay(stage.handle, 2, 240_000)
    answered = {}
    for number, verdict in ((5, "approve"), (6, "refuse")):
        stage.ask_people(number)
        asked = stage.waiting()[0]
        order = build_approval(
            asked, deployment=stage.made.deployment, ladder="finance", verdict=verdict,  # type: ignore[arg-type]
            person="controller",
        )  # fmt: skip
        stage.handle.call("answer", sign_approval(order, stage.private("controller")))
        answered[verdict] = asked["id"]
    stage.ask_people(7, 700_000)
    denied = pay(stage.handle, 8, 2_600_000)
    stage.provider.script.extend(["refused", *["lost_before"] * 500])
    stage.provider.lookup_says = "timeout"
    failed, lost = pay(stage.handle, 3, 12_000), pay(stage.handle, 4, 13_000)
    stage.handle.call("kill.set", {"kind": "payee", "value": "borealis-hosting", "reason": "chief: looks <b>odd</b>"})
    one = "/payments/"
    return {
        "payments": "/payments", "payments-none": "/payments?agent=nobody&status=failed", "payment": one + done.action,
        "payment-failed": one + failed.action, "payment-unknown": one + lost.action,
        "payment-approved": one + answered["approve"],
        "payment-refused": one + answered["refuse"], "payment-denied": one + denied.action, "limits": "/limits",
        "agents": "/agents", "policy": "/policy", "evidence": "/evidence", "health": "/health",
        "missing": "/payments/nothing",
    }  # fmt: skip


@needs_axe
@pytest.mark.slow
def test_axe_finds_nothing_on_the_pages_and_nothing_sticks_out(browser: Any, stage: Stage) -> None:
    """With everything opened, on a small phone and a desk, light and dark: no violation and no sideways scrolling."""
    paths, found = busy_day(stage), []
    for size in (SMALL, DESK):
        for scheme in ("light", "dark"):
            tab = Tab(browser, size, scheme)
            tab.plug_in(stage.passkeys["chief"], "chief")
            tab.sign_in(stage.console, "chief")
            for name, path in paths.items():
                found += looked_at(tab, stage, name, path, size, scheme)
            tab.close()
    assert found == []


@needs_axe
@pytest.mark.slow
def test_a_new_deployment_is_empty_and_in_order(browser: Any, stage: Stage) -> None:
    """Before anything happened every page says so, and axe finds nothing."""
    tab = signed_in(browser, stage, PHONE, "chief")
    found = []
    for path in ("/payments", "/runs", "/limits", "/agents", "/policy", "/evidence", "/health"):
        found += looked_at(tab, stage, "empty" + path.replace("/", "-"), path, PHONE, "light")
    assert found == []
