"""A served deployment with a console whose address is known beforehand, people with passkeys, and questions."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rig import with_bank
from soft_passkey import SoftPasskey
from visitor import ACME, AGENT, Face, Provider, Visitor, make, pay, waiting

import countermark
from countermark.authority import decode64, encode64, load_private
from countermark.model.clock import FakeClock
from countermark.server import Listener
from countermark.wiring import ServeSettings

PEOPLE = """
[people.controller]         # answers when the gate asks
name = "Cleo Controller"
roles = ["approver"]
keys = ["{{KEY:controller}}", "PASSKEY:controller"]

[people.chief]
name = "Farah Chief"
roles = ["chief"]
keys = ["{{KEY:chief}}", "PASSKEY:chief"]

[people.auditor]
name = "Aude Auditor"
roles = ["auditor"]
key = "{{KEY:auditor}}"

[people.visitor]
name = "Vic Visitor"
roles = []
key = "{{KEY:visitor}}"
"""
LADDER = """[[ladder.finance.rung]]
roles = ["approver"]
quorum = 1
deadline = "4h"

[[ladder.finance.rung]]
roles = ["chief"]
quorum = 1
deadline = "2h"
"""
_HEAD = """
[people.controller]         # answers when the gate asks
name = "Controller"
roles = ["approver"]
key = "{{KEY:controller}}"
"""
_OLD_LADDER = '[ladder.finance]\nroles = ["approver"]\nquorum = 1\ndeadline = "4h"\n'


OTHER_NAME = "api.example"  # the server answers to it, its pages do not


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Stage(Face):
    """``fresh``: the controller has no passkey yet."""

    def __init__(
        self, root: Path, *, clock: FakeClock | None = None, fresh: bool = False, ladder: str = LADDER,
        console: str = "", changes: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.root, self.clock, port = root, clock, free_port()
        self.provider = Provider()
        self.console = console or f"http://localhost:{port}"
        self.passkeys = {name: SoftPasskey(n, self.console) for n, name in enumerate(("controller", "chief"))}
        people = PEOPLE
        for name, key in self.passkeys.items():
            own = "" if fresh and name == "controller" else f', "{key.text}"'
            people = people.replace(f', "PASSKEY:{name}"', own)
        edits = {
            _HEAD: people, _OLD_LADDER: ladder,
            "http://localhost:8521": self.console,
            **(changes or {}),
        }  # fmt: skip
        self.made = make(root, self.provider, clock=clock, changes=edits)
        with_bank(root)
        settings = ServeSettings(port=port, names=(OTHER_NAME, *([console.split("//")[1]] if console else [])))
        self.handle = countermark.open(
            root, agent=AGENT, connectors={"stripe": self.provider}, tier="enforcing", clock=clock
        )
        self.listener = Listener(self.handle, None, settings, clock)
        self.url = self.listener.start()

    def ask_people(self, number: object, amount: int = 600_000, **more: Any) -> str:
        """An action that people must decide. Returns the escalation's id."""
        found = pay(self.handle, number, amount, **more)
        assert found.status == "escalated", found
        return found.escalation or ""

    def offered(self, code: str) -> dict[str, Any]:
        """The offer of a code, as people fetch it."""
        found = self.listener.surroundings.offers.find(code)
        assert found is not None
        return found.document()

    def tick(self) -> None:
        """Let the gate look at what has fallen due, as it does again and again."""
        self.handle.gate.wait(self.handle.gate._expire())

    def waiting(self) -> list[dict[str, Any]]:
        return waiting(self.handle)

    def private(self, person: str) -> Any:
        return load_private(self.made.people[person])

    def answered(self, person: str, challenge: str) -> dict[str, str]:
        """What the script of a page puts into a form when the person's passkey has answered."""
        key = self.passkeys[person]
        found = key.assertion(decode64(challenge, 32))
        return {"credential": encode64(key.credential), "assertion": json.dumps(found)}

    def visitor(self, person: str = "") -> Visitor:
        """A browser without a screen, signed in where a person is given."""
        found = Visitor(self, self.console.split("//")[1])
        if person:
            assert found.sign_in(person).status == 303
        return found


__all__ = ["ACME", "AGENT", "Stage", "free_port"]
