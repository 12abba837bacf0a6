"""Chromium with a passkey in software, and axe: what tests of the real pages share."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from soft_passkey import SoftPasskey

CHROMIUM = Path("/usr/bin/chromium")
ROOT = Path(__file__).resolve().parent.parent.parent
AXE = ROOT / "tests" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
SHOTS = ROOT / "build" / "console"
PHONE, SMALL, DESK = (390, 844), (360, 780), (1280, 900)
WAIT_MS = 10_000

# Refusals that a test asks for; and that we take one algorithm only.
_EXPECTED = re.compile(r"status of (?:4\d\d|204)|pubKeyCredParams is missing")

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs debian: chromium")
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="needs npm: axe-core (npm install --prefix tests/npm)")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        flags = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=[*flags, "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """One page of one browser profile. ``complaints`` are what the browser said against the page."""

    def __init__(self, browser: Any, size: tuple[int, int] = DESK, scheme: str = "light", zone: str = "UTC") -> None:
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, timezone_id=zone,
            has_touch=size == PHONE, device_scale_factor=2 if size == PHONE else 1, reduced_motion="reduce",
        )  # fmt: skip
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.cdp = self.context.new_cdp_session(self.page)
        self.authenticator = ""

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning") and not _EXPECTED.search(message.text):
            self.complaints.append(message.text)

    def plug_in(self, key: SoftPasskey | None = None, person: str = "") -> None:
        """An authenticator of the device, with a passkey that exists already if one is given."""
        self.cdp.send("WebAuthn.enable", {"enableUI": False})
        made = self.cdp.send("WebAuthn.addVirtualAuthenticator", {"options": {
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
            "isUserVerified": True, "automaticPresenceSimulation": True}})  # fmt: skip
        self.authenticator = made["authenticatorId"]
        if key is not None:
            raw = key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            self.cdp.send("WebAuthn.addCredential", {"authenticatorId": self.authenticator, "credential": {
                "credentialId": base64.b64encode(key.credential).decode(), "isResidentCredential": True,
                "rpId": "localhost", "privateKey": base64.b64encode(raw).decode(), "signCount": 1,
                "userHandle": base64.b64encode(person.encode()).decode()}})  # fmt: skip

    def sign_in(self, console: str, person: str) -> None:
        """With the passkey."""
        self.page.goto(f"{console}/login")
        self.page.get_by_label("Your id").fill(person)
        self.page.get_by_role("button", name="Go on").click()
        self.page.get_by_role("button", name="Sign in with your passkey").click()
        self.page.wait_for_url(f"{console}/waiting")

    def shot(self, name: str, *, full: bool = True) -> None:
        """Keep what it looks like, as build output."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=full)

    def axe(self) -> list[str]:
        """What axe finds against the page. It runs in a world of its own, so the page's policy stays as it is."""
        frame = self.cdp.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        world = self.cdp.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"})
        run = {"contextId": world["executionContextId"], "awaitPromise": True, "returnByValue": True}
        self.cdp.send("Runtime.evaluate", {**run, "expression": AXE.read_text("utf-8")})
        found = self.cdp.send("Runtime.evaluate", {**run, "expression": _RUN})
        assert "exceptionDetails" not in found, found
        return [f"{one['id']}: {one['help']} ({one['at']})" for one in found["result"]["value"]]

    def check(self) -> None:
        """Nothing that axe finds (where it is installed), nothing that the browser said, no sideways scrolling."""
        assert (self.axe() if AXE.exists() else []) == []
        assert self.complaints == []
        assert self.wide() == 0

    def wide(self) -> int:
        """By how many pixels the page is wider than the screen."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def close(self) -> None:
        self.context.close()


_RUN = """axe.run(document, {resultTypes: ["violations"]}).then(
  (all) => all.violations.map((one) => ({id: one.id, help: one.help,
    at: one.nodes.slice(0, 3).map((node) => node.target.join(" ") + " " + (node.failureSummary || "")).join("; ")})))"""
