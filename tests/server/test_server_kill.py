"""The kill switch over HTTP, under load: each scope, the provider's books, the server's sudden death, a clearance."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bypass"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest
from payers import Payers
from rig import BOREALIS
from siege import ACME, AGENT, TOOL, Siege, judge_books, serve, twin_for, unsound
from support import intents, records

from countermark.authority import clear, load_private
from countermark.model.values import Result

BEFORE, AFTER = 15, 24
WAIT_S = 30
SCOPES = ("deployment", "agent", "tool", "mandate", "payee")


def _moved(siege: Siege) -> set[str]:
    """Keys of what the provider's books say has moved."""
    return {m.metadata["countermark_key"] for m in siege.twin.books().movements()}


def _before(result: Result, seq: int) -> bool:
    """Whether an outcome or a denial was recorded before this record: its answer was only on its way."""
    if result.receipt is None:
        return False
    last = result.receipt.decided_seq if result.status == "denied" else result.receipt.settled_seq
    return last is not None and last < seq


def _again(siege: Siege) -> None:
    """The server dies, and another one starts in its place."""
    siege.child.kill()
    siege.child.communicate()
    siege.child, _ = serve(siege.root, "--port", str(siege.address[1]))


def _clear(siege: Siege, kill: str) -> None:
    order = {"deployment": siege.made.deployment, "kill": kill, "person": "treasurer", "reason": "looked into"}
    signed = clear(order, load_private(siege.made.people["treasurer"]))
    answer = siege.ask("POST", f"/v1/kills/{kill}/clearance", signed, token="")
    assert (answer.status, answer.json) == (200, {"cleared": kill})


def _stopped(siege: Siege, payers: Payers, scope: str, value: str) -> str:
    """Stop a scope under load; what the books show after the answer was listed in it. Returns the kill."""
    payers.hear(BEFORE, WAIT_S)
    body = json.dumps({"kind": scope, "value": value, "reason": "drill"}).encode()
    answer = siege.person_asks("POST", "/v1/kills", body)
    before, heard = _moved(siege), set(payers.acknowledged)
    assert answer.status == 201, answer.body
    listed = {entry["id"] for entry in answer.json["in_flight"]}
    payers.hear(AFTER, WAIT_S)
    moved = _moved(siege) - before
    found = records(siege.root)  # read after the books: an intent is there before its effect
    made, stop = intents(found), next(r for r in found if r.body.get("kill") == answer.json["kill"])
    payee = value if scope == "payee" else None
    late = [made[key].body for key in moved]
    assert {body["id"] for body in late if payee in (None, body["terms"]["payee"])} <= listed, scope
    with payers.heard:
        after = {n: one for n, one in payers.acknowledged.items() if n not in heard and not _before(one, stop.seq)}
    others = {n for n in after if payee is not None and n % 2}  # every second payment is to the other payee
    codes = {one.code for n, one in after.items() if n not in others and one.action not in listed}
    assert "killed" in codes
    assert codes <= {"killed", "not_sent"}  # what was decided before and not sent yet is stopped at the barrier
    assert {after[n].code for n in others} <= {"ok"}  # whom the stop does not cover goes on
    assert bool(others) == (payee is not None)
    return str(answer.json["kill"])


@pytest.mark.parametrize("scopes", [("payee",), pytest.param(SCOPES, marks=pytest.mark.slow)], ids=["payee", "every"])
def test_a_stop_over_http_holds_under_load_and_over_a_sudden_death(tmp_path: Path, scopes: tuple[str, ...]) -> None:
    """In these scopes: nothing new after the answer, what was under way is listed, a restart changes nothing."""
    with twin_for(tmp_path / "twin") as twin:
        siege = Siege(tmp_path, twin)
        values = {"deployment": "", "agent": AGENT, "tool": TOOL, "payee": "acme-paper",
                                  "mandate": siege.made.mandates[AGENT]}  # fmt: skip
        run = siege.ask("POST", "/v1/runs", {}).json["run"]
        payers = Payers(siege.url, siege.token, run, "K", (ACME, BOREALIS))
        try:
            for number, scope in enumerate(scopes):
                kill = _stopped(siege, payers, scope, values[scope])
                _again(siege)
                refused = siege.act({"amount": 100, "currency": "eur", "destination": ACME,
                                     "metadata[invoice]": f"R-{number}"}, run=run)  # fmt: skip
                assert (refused.status, refused.json["code"]) == (403, "killed")
                _clear(siege, kill)
        finally:
            payers.close()
            code = siege.stop()
        assert code == 0
        assert payers.changed == []
        assert judge_books(siege.root, twin) == []
    assert unsound(siege.root) == []
