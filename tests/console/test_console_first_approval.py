"""docs/first-approval.md, command by command, and what it says to press in a browser of a phone's size."""

from __future__ import annotations

import re
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from browser import PHONE, Tab, chromium, needs_chromium

from countermark.journal import SqliteStore

sys.path.append(str(Path(__file__).resolve().parent.parent / "cli"))
from walking import free_port, script, walk

PAGE = "first-approval.md"
LIMIT_S = 180
TOLD = ["Waiting for an answer", "Approved", "Being sent", "Confirmed"]


def commands(port: str, extra: str) -> str:
    """The page as a script, on free ports; the policy's console follows, and questions are answered with yes."""
    made = "countermark init acme --template vendor-payments"
    moved = f"\nsed -i s/8521/{port}/ acme/policy/limits.toml\ncountermark -C acme policy activate --yes \\\n"
    moved += "  --author treasurer --key acme/people/treasurer.pem\n"
    moved += f"printf '\\n[serve]\\nport = {port}\\n' >> acme/countermark.toml\n"
    text = script(PAGE, ("4242", "4243"), [extra])
    first, line, rest = text.partition(made)
    options, _, rest = rest.partition("\n")
    rest = rest.replace("8521", port).replace("controller.pem\n", "controller.pem --yes\n")
    rest = rest.replace("K7QM-3XHD", '"$(until [ -s code.txt ]; do sleep 0.1; done; cat code.txt)"')
    return f"{first}{line}{options}{moved}{rest}\ncountermark audit reperform\n"


def until(file: Path, pattern: str, walked: Future[str]) -> str:
    """What ``pattern`` finds in a file that the script writes; raises what the script ended with."""
    while True:
        found = re.search(pattern, file.read_text("utf-8")) if file.exists() else None
        if found:
            return found[0]
        if walked.done():
            raise AssertionError(f"{file.name} without {pattern}: {walked.result()}")
        Event().wait(0.05)


def paid(folder: Path) -> list[tuple[int, str]]:
    """Amount and outcome of everything that was sent."""
    store = SqliteStore(folder / "acme" / "data" / "journal.db", readonly=True)
    try:
        found = list(store.records())
    finally:
        store.close()
    decided = {r.seq: r.body for r in found if r.kind == "action.decided"}
    settled = [r.body for r in found if r.kind == "action.settled"]
    return [(decided[one["intent"]]["terms"]["amount"], one["outcome"]) for one in settled]


def check(folder: Path, told: str) -> None:
    """What both ways of the page must have led to."""
    assert paid(folder) == [(7_000, "confirmed"), (600_000, "confirmed")]
    assert told.index('"status":"escalated"') < told.index('"status":"confirmed"')
    assert "Done: 6,000.00 EUR to Acme Paper GmbH (acme-paper), invoice INV-2, confirmed as tr_" in told
    assert "Controller (controller) approved on " in told


@pytest.mark.slow
def test_the_page_works_as_typed_with_a_key_file(tmp_path: Path) -> None:
    """Without a browser: one payment goes at once, one after the message and the yes of a key file."""
    if shutil.which("curl") is None:
        pytest.skip("needs debian: curl")
    told = walk(commands(free_port(), "file"), tmp_path, LIMIT_S)
    check(tmp_path, told)
    assert "signed with a key file, fingerprint" in told


@pytest.mark.slow
@needs_chromium
def test_the_page_works_as_typed_and_pressed_on_a_phone(tmp_path: Path) -> None:
    """A passkey made, enrolled by its code, the message's link opened, approved on 390 pixels, paid, and told."""
    if shutil.which("curl") is None:
        pytest.skip("needs debian: curl")
    port = free_port()
    home, messages = f"http://localhost:{port}", tmp_path / "messages.txt"
    with ThreadPoolExecutor(1) as pool, chromium() as browser:
        walked = pool.submit(walk, commands(port, "phone"), tmp_path, LIMIT_S)
        link = until(messages, rf"{home}/waiting/esc_\w+", walked)
        tab = Tab(browser, PHONE)
        tab.plug_in()
        page = tab.page
        page.goto(f"{home}/enrol")
        page.get_by_label("Your id").fill("controller")
        page.get_by_role("button", name="Make the passkey").click()
        page.get_by_role("button", name="Sign with the passkey").click()
        (tmp_path / "code.txt").write_text(page.locator(".big-code").inner_text(), "utf-8")
        until(tmp_path / "told.txt", "Enrolled for controller", walked)
        page.goto(link)
        page.get_by_label("Your id").fill("controller")
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("button", name="Sign in with your passkey").click()
        page.wait_for_url(link)
        page.get_by_role("button", name="Approve 6,000.00 EUR").click()
        page.get_by_text("Done: the provider confirmed it.").wait_for()
        tab.check()
        tab.shot("first-approval")
        page.get_by_role("link", name="The whole story of this payment").click()
        page.get_by_text("Controller (controller) approved").first.wait_for()
        page.get_by_text("signed with a passkey, fingerprint").wait_for()
        tab.check()
        told = walked.result()
    check(tmp_path, told)
    assert "signed with a passkey, fingerprint" in told
    assert f"(enforcing). People answer at {home}." in told
    heads = re.findall(r"^(.+): 6,000.00 EUR to Acme Paper GmbH$", messages.read_text("utf-8"), re.MULTILINE)
    assert heads == TOLD
