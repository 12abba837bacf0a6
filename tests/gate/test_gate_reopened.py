"""What becomes of an obligation that was not paid: free again for a corrected attempt, or reopened by two people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rig import (
    TOOL,
    Provider,
    args_for,
    hold,
    kinds,
    make,
    pay,
    rebuilt_equally,
    signed_answer,
    unsound,
    waiting,
)  # fmt: skip
from support import records

from countermark.audit import Wanted, explain, export_extract, export_pack
from countermark.authority import generate, load_private, public_of, sign_reopening
from countermark.journal import SqliteStore
from countermark.log import LogSigner
from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError
from countermark.wiring.init import Made
from countermark_verify import parse_trust, verify

LARGE = 600_000
BOTH = ("treasurer", "controller")


def reopening(root: Path, made: Made, action: str, people: tuple[str, ...] = BOTH, **changes: Any) -> dict[str, Any]:
    """Two people's order; ``changes`` replace members before it is signed."""
    found = [r for r in records(root) if r.kind == "escalation.answered" and r.body["id"] == action]
    digest = found[-1].digest if found else "sha256:" + "0" * 64
    document = {"v": 1, "deployment": made.deployment, "action": action, "refusal_digest": digest,
                "reason": "the goods have come after all", **changes}  # fmt: skip
    signed = [sign_reopening(document, name, load_private(made.people[name])) for name in people]
    return {"reopening": document, "signed": signed}


def refuse(handle: Any, made: Made, person: str = "controller") -> str:
    (asked,) = waiting(handle)
    handle.call("answer", signed_answer(made, asked, "refuse", person))
    return str(asked["id"])


def findings(root: Path, pack: Path, case: str = "") -> list[tuple[str, int | None, str]]:
    """What the independent verifier says of the deployment's pack, or of the extract of one case."""
    signer = LogSigner("countermark/test/l0", load_private(root / "keys" / "log.pem"))
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    wanted = Wanted(case=case)
    made = (
        export_extract(pack, store, signer, wanted, deployment="test")
        if case
        else export_pack(pack, store, signer, deployment="test")
    )
    store.close()
    people = {path.stem: str(public_of(load_private(path))) for path in (root / "people").glob("*.pem")}
    trust = {"v": 1, "log": {"origin": "countermark/test/l0", "keys": [signer.vkey]}, "people": people,
             "heads": [{"size": made.size, "root": made.root, "source": "kept", "verified": True}]}  # fmt: skip
    report = verify(pack, parse_trust(json.dumps(trust).encode()))
    return [(one.code, one.seq, one.message) for step in report.steps for one in step.findings]


def test_what_was_denied_failed_or_not_answered_may_be_tried_again(tmp_path: Path) -> None:
    """A denial by the policy takes no business key; a definite failure and an expiry give theirs back."""
    provider, clock = Provider(["refused"]), FakeClock()
    make(tmp_path / "d", provider, clock=clock)
    held = ("duplicate_obligation", "already_waiting", "refused_by_person")
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        wrong = {**args_for(1), "destination": "acct_nobody"}
        assert handle.act(TOOL, wrong, run=run, call_id="a").status in ("denied", "escalated")
        assert pay(handle, 2, run=run, call_id="b").status == "failed"
        assert pay(handle, 2, run=run, call_id="b2").status == "confirmed"
        assert pay(handle, 3, LARGE, run=run, call_id="c").status == "escalated"
        clock.advance(90 * 86_400)
        handle.gate.wait(handle.gate._expire())
        assert pay(handle, 3, LARGE, run=run, call_id="c").code == "not_approved"
        assert pay(handle, 3, LARGE, run=run, call_id="c2").code not in held
        assert pay(handle, 1, run=run, call_id="a2").code not in held
    assert unsound(tmp_path / "d") == []


def test_a_refused_invoice_is_paid_once_two_people_reopen_it(tmp_path: Path) -> None:
    """Until then every attempt is denied; afterwards a new one asks people again, and is paid once, on their yes."""
    root, provider = tmp_path / "d", Provider()
    made = make(root, provider)
    with hold(root, provider) as handle:
        run = handle.start_run()
        pay(handle, 1, LARGE, run=run)
        action = refuse(handle, made)
        assert pay(handle, 1, LARGE, run=run, call_id="again").code == "refused_by_person"
        assert handle.call("reopen", reopening(root, made, action)) == action
    with hold(root, provider) as handle:
        assert pay(handle, 1, LARGE, run=run).code == "not_approved"  # the answer to that call stands
        assert pay(handle, 1, LARGE, run=run, call_id="anew").status == "escalated"
        assert pay(handle, 1, 500, run=run, call_id="less").code == "already_waiting"
        assert provider.sent == []
        handle.call("answer", signed_answer(made, waiting(handle)[0]))
        assert pay(handle, 1, LARGE, run=run, call_id="twice").code == "duplicate_obligation"
    assert len(provider.effects) == 1
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    told = explain(store, action).text
    store.close()
    assert "signed on" in told
    assert "that people may be asked again: the goods have come after all" in told
    assert unsound(root) == []
    assert rebuilt_equally(root)
    assert findings(root, tmp_path / "pack.zip") == []


def test_a_second_refusal_holds_until_it_is_reopened_too(tmp_path: Path) -> None:
    """An order reopens one refusal: the same one again does nothing about the next."""
    root, provider = tmp_path / "d", Provider()
    made = make(root, provider)
    with hold(root, provider) as handle:
        run = handle.start_run()
        pay(handle, 1, LARGE, run=run)
        first = refuse(handle, made)
        order = reopening(root, made, first)
        handle.call("reopen", order)
        refused(handle, order, "not_refused")
        pay(handle, 1, LARGE, run=run, call_id="anew")
        second = refuse(handle, made)
        refused(handle, order, "not_refused")
        assert pay(handle, 1, LARGE, run=run, call_id="third").code == "refused_by_person"
        handle.call("reopen", reopening(root, made, second))
        assert pay(handle, 1, LARGE, run=run, call_id="fourth").status == "escalated"
    assert provider.sent == []
    assert unsound(root) == []
    assert findings(root, tmp_path / "pack.zip") == []


def test_an_extract_without_the_refusal_is_honest_too(tmp_path: Path) -> None:
    """The order stands in every extract, the refusal only in that of its own run."""
    root, provider, clock = tmp_path / "d", Provider(), FakeClock()
    made = make(root, provider, clock=clock)
    with hold(root, provider, clock) as handle:
        pay(handle, 1, LARGE, run=handle.start_run())
        action = refuse(handle, made)
        handle.call("reopen", reopening(root, made, action))
        anew = pay(handle, 1, LARGE, run=handle.start_run(), call_id="anew").action
        handle.call("answer", signed_answer(made, waiting(handle)[0]))
        clock.advance(86_400)
        handle.gate.wait(handle.gate.epochs.turn())
    for number, case in enumerate((action, anew)):
        assert findings(root, tmp_path / f"{number}.zip", case) == []


def refused(handle: Any, body: dict[str, Any], *codes: str) -> None:
    with pytest.raises(CountermarkError) as caught:
        handle.call("reopen", body)
    assert caught.value.code in codes, caught.value


def test_only_two_people_reopen_and_only_what_was_refused(tmp_path: Path) -> None:
    """One person, the same twice, a stranger's key, another document, deployment or refusal: nothing is recorded."""
    root, provider = tmp_path / "d", Provider()
    made = make(root, provider)
    with hold(root, provider) as handle:
        run = handle.start_run()
        paid = pay(handle, 2, run=run)
        pay(handle, 1, LARGE, run=run)
        (asked,) = waiting(handle)
        refused(handle, reopening(root, made, asked["id"]), "not_refused")
        action = refuse(handle, made)
        good = reopening(root, made, action)
        stranger = {**good["signed"][0], **sign_reopening(good["reopening"], "controller", generate())}
        for signed in ([], good["signed"][:1], [good["signed"][0]] * 2):
            refused(handle, {**good, "signed": signed}, "four_eyes", "bad_reopening")
        refused(handle, {**good, "signed": [good["signed"][0], stranger]}, "not_authorised")
        refused(handle, {**good, "reopening": {**good["reopening"], "reason": "other"}}, "bad_signature")
        refused(handle, reopening(root, made, action, deployment="other"), "not_authorised")
        refused(handle, reopening(root, made, action, refusal_digest="sha256:" + "0" * 64), "bad_reopening")
        refused(handle, reopening(root, made, paid.action), "not_refused")
        refused(handle, {**good, "reopening": {"action": "act_" + "0" * 32}}, "unknown_action")
        refused(handle, {}, "unknown_action")
        assert pay(handle, 1, LARGE, run=run, call_id="again").code == "refused_by_person"
    assert "obligation.reopened" not in kinds(root)
