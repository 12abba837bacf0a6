"""Structured logs: one object a line, and nothing in it that a client sent."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from countermark.model.errors import ConfigError
from countermark.wiring.logs import SWITCH, JsonLines, configure_logs

CANARY = "canary-19bf3c"


def line(name: str, message: str, *args: object, error: BaseException | None = None) -> Any:
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(name, logging.WARNING, __file__, 1, message, args, info)
    text = JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_our_messages_stand_whole_and_those_of_others_without_what_they_were_given() -> None:
    """A web server's line may quote a request; only its template is kept."""
    assert line("countermark.gate", "the effect of record %d", 7)["message"] == "the effect of record 7"
    other = line("uvicorn.error", "bad request %s", CANARY)
    assert (other["message"], other["level"], other["logger"]) == ("bad request %s", "warning", "uvicorn.error")


def test_an_exception_is_its_type_and_its_places() -> None:
    """The message of an exception may quote a value, so it is left out."""
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        found = line("countermark.lane", "a message failed: %s", "ValueError", error=error)
    assert found["error"]["type"] == "ValueError"
    assert [frame.split()[1] for frame in found["error"]["frames"]] == [sys._getframe().f_code.co_name]
    assert CANARY not in json.dumps(found)


def test_a_line_cannot_be_forged_or_grow_without_bound() -> None:
    """Line breaks in a message are escaped, and a long one is cut."""
    assert line("countermark.gate", "%s", "a\nb")["message"] == "a\nb"
    assert len(line("countermark.gate", "%s", "x" * 100_000)["message"]) == 2_000


def test_the_switch_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown form is refused, and without the switch nothing is changed."""
    before = list(logging.getLogger().handlers)
    monkeypatch.setenv(SWITCH, "yaml")
    with pytest.raises(ConfigError):
        configure_logs()
    monkeypatch.delenv(SWITCH)
    configure_logs()
    assert logging.getLogger().handlers == before
