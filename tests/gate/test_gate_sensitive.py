"""G9's shape from the first record on: what is sensitive stands nowhere in the clear and can be erased by one key."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from rig import ACME, BOREALIS, TOOL, Provider, args_for, bodies, hold, make, signed_answer, unsound, waiting
from support import records

from countermark.model.errors import CountermarkError

NOTE = "For Mrs Example, born 1970-01-01"
WHY = "She called from 555-0100 and asked for it"
SENSITIVE = {
    '[tool."stripe.transfers.create".args."metadata[invoice]"]': (
        '[tool."stripe.transfers.create".args.description]\nclass = "inert"\nsensitive = true\n\n'
        '[tool."stripe.transfers.create".args."metadata[invoice]"]'
    )
}


def _pay(handle, number: int, amount: int = 1000, destination: str = ACME, run: str | None = None):  # type: ignore[no-untyped-def]
    args = {**args_for(number, amount, destination), "description": f"{NOTE} {destination}"}
    return handle.act(TOOL, args, call_id=f"c-{number}", run=run, reason=WHY)


def _files(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


def test_sensitive_values_stand_nowhere_in_the_clear(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither while the gate runs nor afterwards does any file or log line hold a sensitive value or a reason."""
    provider = Provider(["lost_after", "refused"])
    made = make(tmp_path / "d", provider, tools=SENSITIVE)
    caplog.set_level("DEBUG")
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        for number in range(4):
            _pay(handle, number, run=run)
        _pay(handle, 9, 600_000, run=run)
        (asked,) = waiting(handle)
        assert asked["values"]["description"] == f"{NOTE} {ACME}"  # the approver sees what is asked
        assert asked["reason"] == WHY
        assert handle.call("answer", signed_answer(made, asked))["result"]["status"] == "confirmed"
        with pytest.raises(CountermarkError):
            handle.act(TOOL, {**args_for(1), "description": NOTE + "!"}, call_id="c-1", run=run)
        running = _files(tmp_path / "d")
    for text in (NOTE, WHY, "Mrs Example", "555-0100"):
        for files in (running, _files(tmp_path / "d")):
            assert text.encode() not in files
            assert text.encode("utf-16-le") not in files
        assert text not in caplog.text
    decided = bodies(tmp_path / "d", "action.decided")
    assert all(set(body["args"]["description"]) == {"$sd"} for body in decided)
    assert all(body["salt"] is None for body in decided)
    digests = [body["args"]["description"]["$sd"] for body in decided[:4]]
    assert len(set(digests)) == 4  # salted: equal values are not recognised
    assert unsound(tmp_path / "d") == []


def test_a_retry_is_recognised_by_its_sealed_values(tmp_path: Path) -> None:
    """The same sensitive values are the same action, other ones are a conflict, also after a restart."""
    provider = Provider()
    make(tmp_path / "d", provider, tools=SENSITIVE)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        first = _pay(handle, 1, run=run)
    with hold(tmp_path / "d", provider) as handle:
        assert _pay(handle, 1, run=run).ref == first.ref
        with pytest.raises(CountermarkError) as caught:
            handle.act(TOOL, {**args_for(1), "description": "other"}, call_id="c-1", run=run)
        assert caught.value.code == "identity_conflict"
    assert len(provider.sent) == 1


def test_an_intent_with_sealed_values_is_recovered(tmp_path: Path) -> None:
    """After a restart the exact request is made again from the vault, under the same key."""
    provider = Provider(["lost_before"] * 3, lookup="provider_error")
    make(tmp_path / "d", provider, tools=SENSITIVE)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        assert _pay(handle, 1, run=run).status == "unknown"
    with hold(tmp_path / "d", provider) as handle:
        assert _pay(handle, 1, run=run).status == "confirmed"
    assert len(set(provider.sent)) == 1
    assert len(provider.effects) == 1


def test_destroying_a_key_erases_one_subject_and_breaks_no_proof(tmp_path: Path) -> None:
    """Without a subject's key its values are gone for good, another's are readable, and every record still holds."""
    provider = Provider()
    make(tmp_path / "d", provider, tools=SENSITIVE)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        _pay(handle, 1, 600_000, run=run)
        _pay(handle, 2, 600_000, BOREALIS, run=run)
    before = [record.raw for record in records(tmp_path / "d")]
    vault = sqlite3.connect(tmp_path / "d" / "data" / "vault.db")
    assert vault.execute("delete from subject where id='acme-paper'").rowcount == 1
    vault.commit()
    vault.close()
    with hold(tmp_path / "d", provider) as handle:
        by_payee = {asked["terms"]["payee"]: asked for asked in waiting(handle)}
        assert by_payee["acme-paper"]["values"] is None
        assert by_payee["acme-paper"]["reason"] == ""
        assert by_payee["borealis-hosting"]["reason"] == WHY
        assert handle.call("status", {})["kills"] == []
    assert [record.raw for record in records(tmp_path / "d")][: len(before)] == before
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []


def test_what_was_erased_cannot_be_sent(tmp_path: Path) -> None:
    """An approval for an action whose values were erased sends nothing: there are no bytes left to send."""
    provider = Provider()
    made = make(tmp_path / "d", provider, tools=SENSITIVE)
    with hold(tmp_path / "d", provider) as handle:
        _pay(handle, 1, 600_000)
    vault = sqlite3.connect(tmp_path / "d" / "data" / "vault.db")
    vault.execute("delete from subject")
    vault.commit()
    vault.close()
    with hold(tmp_path / "d", provider) as handle:
        (asked,) = waiting(handle)
        reply = handle.call("answer", signed_answer(made, asked))
        assert reply["result"]["status"] != "confirmed"
        handle.call("recover", {})
    assert provider.sent == []
    assert unsound(tmp_path / "d") == []
