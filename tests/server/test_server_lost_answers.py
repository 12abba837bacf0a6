"""``countermark serve`` killed around an outcome, on each face: what the client that lost its answer sees on retry."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs extra: server")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bypass"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from rig import Only, rebuilt_equally
from siege import ACME, TOOL, Answer, Siege, args_for, judge_books, serve, twin_for, unsound

from countermark.twins.stripe import StripeTwin

STOP_WAIT_S = 60
REQUESTS_MAX = 5_000  # a ladder asks twice a second
LOOKS_MAX = 200
LATER = (0, 20, 60, 140)
Ask = Callable[[Siege, str], Answer]
# After a start's own passages: a run, an intent, an outcome, each with a commit of its own; questions in between.
AROUND = [
    ("dispatch.passed", 1), *(("lane.in_transaction", count) for count in (2, 3, 4)),
    *(("lane.answered", count) for count in (13, 14, 15, 16)),  # the ladders ask twice a second, from the start on
]  # fmt: skip
if os.environ.get("COUNTERMARK_CRASHES") != "all":
    AROUND = AROUND[::3]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeTwin]:
    with twin_for(tmp_path_factory.mktemp("twin")) as twin:
        yield twin


def by_http(siege: Siege, name: str, invoice: str) -> Answer:
    return siege.act(args_for(invoice), call_id=name)


def by_stripe(siege: Siege, name: str, invoice: str) -> Answer:
    fields = [("amount", "1000"), ("currency", "eur"), ("destination", ACME), ("metadata[invoice]", invoice)]
    return siege.form(fields, **{"idempotency-key": name})


def by_mcp(siege: Siege, name: str, invoice: str) -> Answer:
    run = _run_of(siege)
    return siege.mcp(TOOL, args_for(invoice), {"countermark/call_id": name, "countermark/run": run})


def by_decision(siege: Siege, name: str, invoice: str) -> Answer:
    """Answered when the intent is durable; asked again, until the outcome is recorded."""
    body = {"call_id": name, "tool": TOOL, "args": args_for(invoice)}
    for _ in range(LOOKS_MAX):
        answer = siege.ask("POST", "/v1/actions?wait=decision", body)
        if answer.json["status"] != "pending":
            break
        threading.Event().wait(0.02)
    return answer


def _run_of(siege: Siege) -> str:
    """The client of the MCP face keeps the name of its run; a fresh one is minted over HTTP, as the only one."""
    kept = siege.root / "client.run"
    if not kept.exists():
        kept.write_text(siege.ask("POST", "/v1/runs", {}).json["run"])
    return kept.read_text()


FACES = {"http": by_http, "decision": by_decision, "stripe": by_stripe, "mcp": by_mcp}


def ref_of(face: str, answer: Answer) -> str:
    """The provider's reference in a face's own form of an answer; fails when it is not that of a payment made."""
    assert answer.status == 200, answer.body
    doc = answer.json
    if face == "stripe":
        return str(doc["id"])
    told = doc if face in ("http", "decision") else doc["result"]["structuredContent"]
    assert told["status"] == "confirmed", doc
    return str(told["ref"])


def _until_it_dies(siege: Siege, ask: Ask, invoice: str) -> None:
    """A point after an answer may be passed when that answer is out already: the next request does not come back."""
    for _ in range(REQUESTS_MAX):
        ask(siege, "same", invoice)


def _armed(folder: Path, twin: StripeTwin, point: str, count: int) -> Siege:
    """A server that dies at this passage of the point, or a later one where a slow start alone passes it so often."""
    for later in LATER:
        root = folder / str(later)
        root.mkdir()
        os.environ["COUNTERMARK_CRASH"] = f"{point}:{count + later}"
        try:
            return Siege(root, twin)
        except AssertionError:  # it died before it served
            if later == LATER[-1]:
                raise
        finally:
            del os.environ["COUNTERMARK_CRASH"]
    raise AssertionError("no server was started")


def _lost(tmp_path: Path, twin: StripeTwin, face: str, point: str, count: int) -> None:
    tag = f"{face}-{point}-{count}"
    invoice = tag + "-1"
    siege = _armed(tmp_path, twin, point, count)
    try:
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            _until_it_dies(siege, FACES[face], invoice)
        assert siege.child.wait(STOP_WAIT_S) == -signal.SIGKILL
        siege.child.communicate()
        siege.child, _ = serve(siege.root, "--port", str(siege.address[1]))
        found = ref_of(face, FACES[face](siege, "same", invoice))
        assert [found] == [m.id for m in siege.paid(invoice)]
        assert ref_of(face, FACES[face](siege, "same", invoice)) == found
        other = FACES[face](siege, "other", invoice)
        assert b"duplicate_obligation" in other.body
    finally:
        code = siege.stop()
    assert code == 0
    assert judge_books(siege.root, Only(twin, tag)) == []  # type: ignore[arg-type]
    assert unsound(siege.root) == []
    assert rebuilt_equally(siege.root)


@pytest.mark.parametrize("face", [one if one == "http" else pytest.param(one, marks=pytest.mark.slow) for one in FACES])
def test_killed_between_the_provider_s_answer_and_the_outcome(tmp_path: Path, twin: StripeTwin, face: str) -> None:
    """The retry under the same name gets the payment that was made; another name is told that it is paid."""
    _lost(tmp_path, twin, face, "effect.done", 1)


@pytest.mark.slow
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(("point", "count"), AROUND)
def test_killed_elsewhere_around_the_outcome(
    tmp_path: Path, twin: StripeTwin, face: str, point: str, count: int
) -> None:
    """The same before the first byte, inside the transactions of run, intent and outcome, and right after them."""
    _lost(tmp_path, twin, face, point, count)


@pytest.mark.slow
def test_an_mcp_client_that_names_nothing_is_told_that_it_was_paid(tmp_path: Path, twin: StripeTwin) -> None:
    """After the death its call is a new one: the business key refuses it, and points to the payment's record."""
    os.environ["COUNTERMARK_CRASH"] = "effect.done:1"
    try:
        siege = Siege(tmp_path, twin)
    finally:
        del os.environ["COUNTERMARK_CRASH"]
    try:
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            siege.mcp(TOOL, args_for("nameless"))
        siege.child.wait(STOP_WAIT_S)
        siege.child.communicate()
        siege.child, _ = serve(siege.root, "--port", str(siege.address[1]))
        doc = siege.mcp(TOOL, args_for("nameless")).json
        assert "duplicate_obligation" in json.dumps(doc)
        assert len(siege.paid("nameless")) == 1
    finally:
        siege.stop()
