"""The pages in Chromium, with a passkey in software: people's whole way, and what axe says about each page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import DESK, PHONE, SMALL, Tab, chromium, needs_axe, needs_chromium
from stage import LADDER, Stage

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "d") as found:
        yield found


def signed_in(browser: Any, stage: Stage, size: tuple[int, int] = PHONE, person: str = "controller") -> Tab:
    tab = Tab(browser, size)
    tab.plug_in(stage.passkeys[person], person)
    tab.sign_in(stage.console, person)
    return tab


@pytest.mark.slow
def test_approving_on_a_phone_pays(browser: Any, stage: Stage) -> None:
    """Sign in, open what waits, approve with the passkey, see the payment go; the browser complains of nothing."""
    name = stage.ask_people(1, 2_000_000, reason="Invoice 1 of \u202e Acme, see https://example.invalid")
    tab = signed_in(browser, stage)
    tab.shot("waiting-phone")
    tab.page.locator(f"a#{name}").click()
    tab.page.wait_for_url(f"**/waiting/{name}")
    tab.shot("question-phone")
    tab.page.get_by_role("button", name="Approve 20,000.00 EUR").click()
    tab.page.get_by_text("Done: the provider confirmed it.").wait_for()
    tab.shot("approved-phone")
    assert len(stage.provider.effects) == 1
    tab.check()


@pytest.mark.slow
def test_a_passkey_made_on_the_page_is_enrolled_and_signs_in(browser: Any, tmp_path: Path) -> None:
    """Make a passkey, sign its offer, have it enrolled by its code on the command line, sign in and approve with it."""
    from click.testing import CliRunner

    from countermark.cli import main

    with Stage(tmp_path / "d", fresh=True) as stage:
        name = stage.ask_people(1)
        tab = Tab(browser, PHONE)
        tab.plug_in()
        tab.page.goto(f"{stage.console}/enrol")
        tab.page.get_by_label("Your id").fill("controller")
        tab.page.get_by_label("What you call this device").fill("phone")
        tab.shot("enrol-phone")
        tab.page.get_by_role("button", name="Make the passkey").click()
        tab.page.get_by_role("button", name="Sign with the passkey").wait_for()
        tab.shot("enrol-sign-phone")
        tab.check()
        tab.page.get_by_role("button", name="Sign with the passkey").click()
        code = tab.page.locator(".big-code").inner_text()
        tab.shot("enrol-code-phone")
        tab.check()
        assert text_in(tab, "Fingerprint") in stage.offered(code)["fingerprint"]
        key = str(stage.made.people["controller"])
        args = ["-C", str(stage.root), "people", "enrol", "controller", "--offer", code, "--server", stage.url]
        done = CliRunner().invoke(main, [*args, "--key", key, "--yes"])
        assert done.exit_code == 0, done.output
        tab.sign_in(stage.console, "controller")
        tab.page.goto(f"{stage.console}/waiting/{name}")
        tab.page.get_by_role("button", name="Approve").click()
        tab.page.get_by_text("Done: the provider confirmed it.").wait_for()
        assert len(stage.provider.effects) == 1
        assert tab.complaints == []


def text_in(tab: Tab, label: str) -> str:
    """What stands under a label of the page."""
    text = tab.page.locator("main").inner_text()
    return str(text.partition(label + "\n")[2].partition("\n")[0]).strip()


@pytest.mark.slow
def test_refusing_on_a_phone_sends_nothing(browser: Any, stage: Stage) -> None:
    """The passkey's no ends the question, and the page says that nothing was sent."""
    name = stage.ask_people(1)
    tab = signed_in(browser, stage)
    tab.page.goto(f"{stage.console}/waiting/{name}")
    tab.page.get_by_role("button", name="Refuse").click()
    tab.page.get_by_text("Refused. Nothing was sent.").wait_for()
    tab.shot("refused-phone")
    assert stage.provider.effects == []
    tab.check()


@pytest.mark.slow
def test_without_the_passkey_nothing_is_signed(browser: Any, stage: Stage) -> None:
    """A device that has another passkey, or whose person is not verified, says that nothing was signed."""
    name = stage.ask_people(1)
    tab = signed_in(browser, stage)
    tab.cdp.send("WebAuthn.setUserVerified", {"authenticatorId": tab.authenticator, "isUserVerified": False})
    tab.page.goto(f"{stage.console}/waiting/{name}")
    tab.page.get_by_role("button", name="Approve").click()
    tab.page.get_by_text("Nothing was signed:").wait_for()
    tab.shot("not-signed-phone")
    assert [one["escalation"] for one in stage.waiting()] == [name]
    assert stage.provider.effects == []


@pytest.mark.slow
def test_a_page_left_open_turns_when_others_answer(browser: Any, stage: Stage) -> None:
    """Somebody else's answer makes an open page show what became of it, without a hand."""
    name = stage.ask_people(1)
    tab, other = signed_in(browser, stage), signed_in(browser, stage)
    tab.page.goto(f"{stage.console}/waiting/{name}")
    other.page.goto(f"{stage.console}/waiting/{name}")
    other.page.get_by_role("button", name="Refuse").click()
    tab.page.get_by_text("Refused. Nothing was sent.").wait_for()
    assert tab.complaints == []


@pytest.mark.slow
def test_a_question_that_ran_out_says_so(browser: Any, tmp_path: Path) -> None:
    """When the last deadline has passed, the open page says that no answer means no."""
    from countermark.model.clock import FakeClock

    clock = FakeClock()
    with Stage(tmp_path / "d", clock=clock, ladder=LADDER.replace("4h", "8m").replace("2h", "8m")) as stage:
        name = stage.ask_people(1)
        tab = signed_in(browser, stage)
        tab.page.goto(f"{stage.console}/waiting/{name}")
        for _ in range(2):
            clock.advance(9 * 60)
            stage.tick()
        tab.page.get_by_text("Nobody answered in time, which means no. Nothing was sent.").first.wait_for()
        tab.shot("expired-phone")
        tab.check()
        assert stage.provider.effects == []


@pytest.mark.slow
def test_freezing_an_agent_on_a_phone(browser: Any, stage: Stage) -> None:
    """One opened line and one button stop the agent; the page then cannot approve."""
    name = stage.ask_people(1)
    tab = signed_in(browser, stage)
    tab.page.goto(f"{stage.console}/waiting/{name}")
    tab.page.get_by_text("Freeze agent treasury").first.click()
    tab.page.get_by_label("Why (others will read it)").fill("looks odd")
    tab.shot("freeze-phone")
    tab.page.get_by_role("button", name="Freeze agent treasury").click()
    tab.page.get_by_text("Cannot approve: people have stopped this.").wait_for()
    tab.shot("frozen-phone")
    assert [one["value"] for one in stage.handle.call("status", {})["kills"]] == ["treasury"]
    tab.check()


@pytest.mark.slow
def test_the_list_refreshes_and_the_keyboard_keeps_its_place(browser: Any, stage: Stage) -> None:
    """A new question appears by itself, and the focus stays on the question it was on."""
    first = stage.ask_people(1)
    tab = signed_in(browser, stage, DESK)
    tab.page.locator(f"a#{first}").focus()
    second = stage.ask_people(2)
    tab.page.locator(f"a#{second}").wait_for()
    assert tab.page.evaluate("document.activeElement.id") == first
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url(f"**/waiting/{first}")
    assert tab.complaints == []


@pytest.mark.slow
def test_five_hundred_questions_open_at_once(browser: Any, tmp_path: Path) -> None:
    """The list of 500 shows its first part at once, with all that a busy machine adds in two seconds."""
    with Stage(tmp_path / "d") as stage:
        for number in range(500):
            stage.ask_people(number)
        tab = signed_in(browser, stage, DESK)
        tab.page.goto(f"{stage.console}/waiting")
        took = tab.page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
        assert "500 wait" in tab.page.locator("#waiting").inner_text()
        print(f"500 questions: {took} ms")
        assert took < 2_000
        tab.page.get_by_role("link", name="10", exact=True).click()
        tab.page.wait_for_url("**page=10")
        assert tab.page.locator(".question").count() == 50
        tab.shot("waiting-500")


def paths_of(stage: Stage) -> dict[str, str]:
    """Every page by name, for axe and for the screenshots."""
    known = stage.ask_people(1, 2_000_000, reason="Invoice for paper, due tomorrow")
    unknown = stage.ask_people(2, 700_000, destination="acct_1Stranger", reason="new vendor, see https://x.invalid")
    return {
        "waiting": "/waiting", "question": f"/waiting/{known}", "question-unknown": f"/waiting/{unknown}",
        "trouble": "/waiting/esc_" + "0" * 32,
    }  # fmt: skip


@needs_axe
@pytest.mark.slow
def test_axe_finds_nothing_and_nothing_sticks_out(browser: Any, stage: Stage) -> None:
    """On a small phone and on a desk, light and dark: no violation, no complaint, no sideways scrolling."""
    paths, found = paths_of(stage), []
    for size in (SMALL, DESK):
        for scheme in ("light", "dark"):
            tab = Tab(browser, size, scheme)
            tab.plug_in(stage.passkeys["controller"], "controller")
            for name, path in {
                "enrol": "/enrol",
                "login": "/login",
                "login-passkey": "/login?person=controller",
            }.items():
                found += looked_at(tab, stage, name, path, size, scheme)
            tab.sign_in(stage.console, "controller")
            for name, path in paths.items():
                found += looked_at(tab, stage, name, path, size, scheme)
            tab.close()
    assert found == []


def looked_at(tab: Tab, stage: Stage, name: str, path: str, size: tuple[int, int], scheme: str) -> list[str]:
    tab.page.goto(stage.console + path)
    while (shut := tab.page.locator("main details:not([open]) > summary")).count():
        shut.first.click()
    tab.shot(f"{name}-{size[0]}-{scheme}")
    wrong = [*tab.axe(), *tab.complaints]
    tab.complaints.clear()
    if tab.wide():
        wrong.append(f"{tab.wide()} px too wide")
    return [f"{name} {size[0]} {scheme}: {one}" for one in wrong]
