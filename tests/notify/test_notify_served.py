"""Notifications inside `countermark serve`, and the command line about them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

from cli_support import document, ok, run
from notify_support import HMAC_SECRET, LARGE, SEED_SECRET, Desk, Receiver, slack, webhook
from rig import AGENT, Provider, make, pay, signed_answer, waiting
from test_notify_outbox import NEVER, wait_for
from walking import script, walk

import countermark
from countermark.gate import Gate
from countermark.model.errors import ConfigError
from countermark.server import Listener
from countermark.wiring import ServeSettings, load_config


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_HMAC", HMAC_SECRET)
    monkeypatch.setenv("NOTIFY_KEY", SEED_SECRET)


def deployed(root: Path, channels: str) -> Any:
    made = make(root, Provider())
    path = root / "countermark.toml"
    path.write_text(path.read_text() + channels)
    return made


def test_the_server_tells_of_its_own_and_counts_it(tmp_path: Path) -> None:
    """A served deployment tells the whole thread without anybody's help; /metrics counts by channel."""
    with Receiver() as receiver:
        made = deployed(tmp_path / "d", webhook(receiver.origin))
        with (
            countermark.open(
                tmp_path / "d", agent=AGENT, connectors={"stripe": Provider()}, tier="enforcing"
            ) as handle,
            Listener(handle, settings=ServeSettings(port=0)) as listener,
        ):
            assert pay(handle, 1, LARGE).escalation
            wait_for(lambda: len(receiver.got) == 1)
            handle.call("answer", signed_answer(made, waiting(handle)[0]))
            wait_for(lambda: len(receiver.got) == 4)
            wait_for(lambda: listener.surroundings.counters.values.get(("notices", "sent", "ops")) == 4)
            from countermark.server.metrics import render

            assert b'countermark_notices_total{outcome="sent",channel="ops"} 4' in render(listener.surroundings, {})
            link = receiver.got[0].json["data"]["link"]
            assert link.startswith("http://localhost:8521/waiting/esc_")  # the console that the policy names


@pytest.mark.parametrize("damage", ["garbage", "foreign", "folder"])
def test_a_damaged_outbox_stops_no_gate(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is only about telling people never keeps the gate from serving; the log and `doctor` say so."""
    deployed(tmp_path / "d", webhook("http://127.0.0.1:9"))
    path = tmp_path / "d" / "data" / "notify.db"
    if damage == "folder":
        path.mkdir()
    elif damage == "garbage":
        path.write_bytes(b"not a database at all" * 300)
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("create table t (x)")
    with countermark.open(tmp_path / "d", agent=AGENT, connectors={"stripe": Provider()}) as handle:
        with Listener(handle, settings=ServeSettings(port=0)):
            assert pay(handle, 1).status == "confirmed"
            assert pay(handle, 2, LARGE).escalation
        assert "nobody is notified" in caplog.text
    done = run("-C", str(tmp_path / "d"), "doctor")
    assert "outbox notify.db" in done.output


def test_a_dead_channel_stands_in_nobodys_way(tmp_path: Path) -> None:
    """While a receiver never answers, decisions and payments go on, and closing does not wait for it."""
    over = threading.Event()
    with Receiver([lambda handler: over.wait(20)]) as receiver:
        deployed(tmp_path / "d", webhook(receiver.origin))
        with countermark.open(tmp_path / "d", agent=AGENT, connectors={"stripe": Provider()}) as handle:
            listener = Listener(handle, settings=ServeSettings(port=0))
            listener.start()
            pay(handle, 1, LARGE)
            wait_for(lambda: len(receiver.got) == 1)
            for number in range(2, 12):
                assert pay(handle, number).status == "confirmed"
            listener.stop()
        over.set()


def test_the_gate_hears_through_its_one_entrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A final failure makes the server ask the gate for `escalation.unreachable`, with escalation, ladder and rung."""
    asked: list[Mapping[str, Any]] = []
    before = Gate.call

    async def call(self: Gate, op: str, body: Mapping[str, Any], caller: Any, **more: Any) -> Any:
        if op == "escalation.unreachable":
            asked.append(body)
            return None
        return await before(self, op, body, caller, **more)

    monkeypatch.setattr(Gate, "call", call)
    with Receiver([NEVER]) as receiver:
        deployed(tmp_path / "d", webhook(receiver.origin))
        with (
            countermark.open(tmp_path / "d", agent=AGENT, connectors={"stripe": Provider()}) as handle,
            Listener(handle, settings=ServeSettings(port=0)),
        ):
            escalation = pay(handle, 1, LARGE).escalation
            wait_for(lambda: bool(asked))
    assert asked == [{"escalation": escalation, "ladder": "finance", "rung": 1}]


def test_the_command_line_lists_and_retries(tmp_path: Path) -> None:
    """`notify list`, `dead` and `retry` show what the outbox holds; a retried message is sent by who sends."""
    with Receiver([NEVER]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        escalation = desk.ask()
        desk.tell()
        base = ("-C", str(desk.root), "notify")
        (dead,) = document(run(*base, "dead", "--json"))
        assert (dead["channel"], dead["event"], dead["state"], dead["tries"]) == ("ops", "asked", "dead", 1)
        assert "404" in ok(run(*base, "list"))
        assert escalation in ok(run(*base, "dead"))
        assert document(run(*base, "retry", str(dead["number"] + 1), "--json")) == {"queued": 0}
        assert document(run(*base, "retry", str(dead["number"]), "--json")) == {"queued": 1}
        assert ok(run(*base, "dead")).strip() == "No message is dead."
        desk.clock.advance(10**9)
        desk.tell()
        assert len(receiver.got) == 2


def test_a_channel_is_tried_from_the_command_line(tmp_path: Path) -> None:
    """`notify test` delivers a message that says it is only a test, or ends with 1 and the reason."""
    with Receiver([(200, {}, b""), (500, {}, b"")]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        base = ("-C", str(desk.root), "notify", "test")
        assert "Delivered" in ok(run(*base, "ops"))
        assert receiver.got[0].json["type"] == "gate.test"
        failed = run(*base, "ops")
        assert failed.exit_code == 1
        assert "answered with 500 [not_delivered]" in failed.stderr
        unknown = run(*base, "nope")
        assert unknown.exit_code == 1
        assert "There are: ops." in unknown.stderr


def test_nothing_to_list_says_so(tmp_path: Path) -> None:
    """Where no message was ever made, the commands say who makes them."""
    deployed(tmp_path / "d", "")
    for words in (("list",), ("dead",), ("retry",)):
        failed = run("-C", str(tmp_path / "d"), "notify", *words)
        assert failed.exit_code == 1
        assert "no_outbox" in failed.stderr


def test_doctor_looks_at_channels(tmp_path: Path) -> None:
    """A missing secret is wrong, a dead message and a ladder that nobody serves are warnings."""
    with Receiver([NEVER]) as receiver, Desk(tmp_path / "d", "") as desk:
        other = slack(receiver.origin, ladders='["board"]')
        desk.configure(webhook(receiver.origin) + other)
        desk.reopen()
        desk.ask()
        desk.tell()

        def looked() -> list[tuple[str, str]]:
            checks = json.loads(run("-C", str(desk.root), "doctor", "--json").stdout)["checks"]
            return [(one["state"], one["message"]) for one in checks if one["name"] == "channels"]

        os.environ["NOTIFY_KEY"] = "whsk_short"
        assert any(state == "wrong" and message.startswith("ops (webhook)") for state, message in looked())
        os.environ["NOTIFY_KEY"] = SEED_SECRET
        assert ("warning", "ops (webhook): 0 messages wait, 1 are dead. See `countermark notify dead`.") in looked()
        desk.configure(other)
        assert ("warning", "no channel serves the ladder finance") in looked()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "ops"', 'name = "Ops"'), ('name = "ops"', ""), ('kind = "webhook"', 'kind = "pager"'),
        ("/hook", ""), ("http://127.0.0.1:1/hook", "http://hooks.example/x"), ("/hook", "/hook#x"),
        ('"env:NOTIFY_HMAC"', '"whsec_AAAA"'), ('secrets = ["env:NOTIFY_HMAC", "env:NOTIFY_KEY"]', "secrets = []"),
        ("secrets", "secret"), ('kind = "webhook"', 'kind = "webhook"\nformat = "xml"'),
        ('kind = "webhook"', 'kind = "webhook"\nevents = ["paid"]'),
        ('kind = "webhook"', 'kind = "webhook"\nladders = ["A B"]'),
        ('kind = "webhook"', 'kind = "webhook"\nroles = "approver"'),
        ('kind = "webhook"', 'kind = "webhook"\nallow_addresses = ["inside"]'),
        ('kind = "webhook"', 'kind = "slack"'), ("[[notify]]", "[notify]"),
    ],
)  # fmt: skip
def test_a_wrong_channel_is_refused(tmp_path: Path, old: str, new: str) -> None:
    """Every wrong key is found when the file is read, with the channel's name where it has one."""
    text = webhook("http://127.0.0.1:1")
    assert old in text
    path = tmp_path / "countermark.toml"
    path.write_text('version = 1\ndeployment = "t"\n' + text)
    assert load_config(tmp_path).notify[0].name == "ops"
    path.write_text('version = 1\ndeployment = "t"\n' + text.replace(old, new))
    with pytest.raises(ConfigError, match="notify"):
        load_config(tmp_path)


def test_two_channels_of_one_name_or_too_many_are_refused(tmp_path: Path) -> None:
    """Names are identities of the outbox; their number is bounded."""
    path = tmp_path / "countermark.toml"
    for text in (webhook("http://127.0.0.1:1") * 2, "".join(webhook("http://127.0.0.1:1", f"c{n}") for n in range(17))):
        path.write_text('version = 1\ndeployment = "t"\n' + text)
        with pytest.raises(ConfigError, match="notify"):
            load_config(tmp_path)


@pytest.mark.slow
def test_the_page_works_as_typed(tmp_path: Path) -> None:
    """docs/notifications.md, command by command: a receiver that checks signatures hears question and answer."""
    if shutil.which("curl") is None:
        pytest.skip("needs debian: curl")
    told = walk(script("notifications.md", ["4243"]), tmp_path, 120)
    assert "Waiting for an answer: 6,000.00 EUR to Acme Paper GmbH" in told
    assert "Answered by: controller" in told
    assert "very urgent" not in (tmp_path / "received.txt").read_text()
    assert "sent" in told
