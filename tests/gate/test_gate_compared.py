"""What the gate reads back is compared with what its digest names, before anything follows from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rig import AGENT, Provider, hold, make, pay, signed_answer, waiting

import countermark
from countermark.authority import activate, load_private
from countermark.gate.executor import plain_of
from countermark.journal import SqliteStore
from countermark.model.digest import BUNDLE, FIELD, digest_of
from countermark.model.errors import CountermarkError, EncodingError, PolicyError, StoreError
from countermark.model.records import GENESIS, read, seal
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Request


class Other(Provider):
    """A provider whose connector prepares other bytes than the ones that were decided."""

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        request = super().prepare(tool, args, key)
        return replace(request, body=request.body + b"&amount=999999")


def test_other_bytes_than_the_approved_ones_are_never_sent(tmp_path: Path) -> None:
    """G5: a request rebuilt after an approval that is not the decided one is not sent, and says why."""
    made = make(tmp_path / "d", Provider())
    with hold(made.root, Provider()) as handle:
        assert pay(handle, 1, 600_000).status == "escalated"
    other = Other()
    with hold(made.root, other) as handle:
        (parked,) = waiting(handle)
        result = handle.call("answer", signed_answer(made, parked))["result"]
        assert (result["status"], result["code"]) == ("failed", "not_sent")
    assert other.sent == []
    store = SqliteStore(made.root / "data" / "journal.db", readonly=True)
    settled = [r.body for r in store.records() if r.kind == "action.settled"]
    store.close()
    assert [body["request_id"] for body in settled] == ["request_changed"]


def test_an_edited_policy_row_is_refused(tmp_path: Path) -> None:
    """A bundle in the database that is well formed but not the one its digest names opens nothing."""
    made = make(tmp_path / "d", Provider())
    db = sqlite3.connect(made.root / "data" / "journal.db")
    (raw,) = db.execute("select doc from bundle").fetchone()
    document = json.loads(raw)
    document["compiled"]["payees"][0]["account"] = "acct_1Stranger"
    db.execute("update bundle set doc=?", (json.dumps(document).encode(),))
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="not the one its digest names"):
        hold(made.root, Provider())


def test_a_missing_high_water_file_is_refused(tmp_path: Path) -> None:
    """Without the file nobody could tell a cut journal from a whole one, so the gate does not start."""
    made = make(tmp_path / "d", Provider())
    (made.root / "highwater" / "head").unlink()
    with pytest.raises(CountermarkError) as caught:
        hold(made.root, Provider())
    assert caught.value.code == "behind_high_water"


def test_sealed_values_of_another_record_are_refused() -> None:
    """A value that does not lead to the digest in its record is shown to nobody and sent nowhere."""
    salt = "0" * 32
    body: dict[str, Any] = {"args": {"note": {"$sd": digest_of(FIELD, [salt, "note", "mine"])}}, "salt": None}
    tool: Any = None

    def writer(value: str) -> Any:
        return SimpleNamespace(unseal=lambda seq: {"fields": [["note", salt, value]], "salt": salt})

    assert plain_of(writer("mine"), tool, 7, body) == ({"note": "mine"}, salt)
    with pytest.raises(StoreError, match="not its own"):
        plain_of(writer("theirs"), tool, 7, body)


def test_a_record_of_an_unknown_kind_is_refused() -> None:
    """A kind that this version does not know could be a kind of stop: it is never read over."""
    record = seal(
        lane="l0", seq=0, prev=GENESIS, kind="mandate.suspended", at=1, nonce="0" * 32, by="gate", streams={}, body={}
    )
    with pytest.raises(EncodingError, match="unknown record kind"):
        read(record.raw)


def test_an_activation_is_good_for_one_place_in_history(tmp_path: Path) -> None:
    """The order that put the first policy in force, sent again, changes nothing."""
    made = make(tmp_path / "d", Provider())
    store = SqliteStore(made.root / "data" / "journal.db", readonly=True)
    (first,) = [r for r in store.records() if r.kind == "policy.activated"]
    document = json.loads(store.bundle(made.bundle) or b"{}")
    store.close()
    with countermark.open(made.root, agent=AGENT, connectors={"stripe": Provider()}) as handle:
        with pytest.raises((PolicyError, CountermarkError)):
            handle.call("activate", {**first.body, "document": document})
        order = {**first.body["activation"], "previous": handle.call("status", {})["activation"]}
        signed = activate(order, load_private(made.people["treasurer"]))
        handle.call("activate", {**signed, "document": document})
        with pytest.raises(CountermarkError):
            handle.call("activate", {**signed, "document": document})


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("the author", lambda compiled: compiled.update(author="ghost")),
        ("the owner of treasury", lambda compiled: compiled["agents"][0].update(owner="ghost")),
    ],
)
def test_a_policy_by_nobody_is_not_put_in_force(tmp_path: Path, member: str, change: Any) -> None:
    """Whoever is nobody is kept from answering nothing: who wrote it, and who owns an agent, is one of its people."""
    made = make(tmp_path / "d", Provider())
    store = SqliteStore(made.root / "data" / "journal.db", readonly=True)
    document = json.loads(store.bundle(made.bundle) or b"{}")
    store.close()
    change(document["compiled"])
    with countermark.open(made.root, agent=AGENT, connectors={"stripe": Provider()}) as handle:
        order = {
            "deployment": "test", "bundle": digest_of(BUNDLE, document), "author": document["compiled"]["author"],
            "previous": handle.call("status", {})["activation"], "activator": "treasurer",
        }  # fmt: skip
        signed = activate(order, load_private(made.people["treasurer"]))
        with pytest.raises(PolicyError, match=f"{member} is 'ghost', who is not one of the bundle's people"):
            handle.call("activate", {**signed, "document": document})
