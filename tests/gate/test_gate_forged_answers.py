"""Every answer that is not exactly what a person may say here and now is refused, with the reason that is its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from laddered import HOUR, LARGE, RUNGS, laddered, only, say, tick
from rig import Provider, hold, kinds, pay, signed_answer, unsound

from countermark import Deployment
from countermark.authority import generate, load_private, public_of, sign_approval
from countermark.model.canon import canon
from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError
from countermark.wiring.init import Made

OTHER = "sha256:" + "0" * 64


class Siege(NamedTuple):
    """A payment that waits on the second of three rungs; dora of the board has not answered it."""

    root: Path
    handle: Deployment
    made: Made
    asked: dict[str, Any]
    provider: Provider

    def code(self, body: dict[str, Any]) -> str:
        """Why an answer is refused; nothing is recorded of it, and nothing moves."""
        before = self.handle.call("status", {})["records"]
        with pytest.raises(CountermarkError) as caught:
            self.handle.call("answer", body)
        assert self.handle.call("status", {})["records"] == before
        assert self.provider.sent == []
        return caught.value.code

    def answer(self, person: str = "dora", **changes: Any) -> dict[str, Any]:
        return signed_answer(self.made, self.asked, "approve", person, **changes)


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    root = tmp_path_factory.mktemp("forged") / "d"
    provider, clock = Provider(), FakeClock()
    rungs = RUNGS.replace(
        'roles = ["board"]', 'roles = ["board", "operator"]'
    )  # the treasurer, who owns the agent, too
    third = '\n[[ladder.finance.rung]]\nroles = ["board"]\ndeadline = "1h"\n'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("countermark.gate.gate.LADDERS_S", 3_600.0)  # the gate reads it when it opens
        made = laddered(root, provider, clock, rungs + third)
        opened = hold(root, provider, clock)
    with opened as handle:
        pay(handle, 1, LARGE)
        clock.advance(4 * HOUR)
        tick(handle)
        yield Siege(root, handle, made, only(handle), provider)
        assert say(handle, made, "dora")["state"] == "approved"
    assert kinds(root).count("escalation.answered") == 1
    assert len(provider.effects) == 1
    assert unsound(root) == []


TERMS = {"amount": LARGE, "currency": "eur", "payee": "acme-paper"}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("version", {"v": 2}, "bad_approval"),
    ("another deployment", {"deployment": "elsewhere"}, "approval_deployment"),
    ("no deployment", {"deployment": ""}, "bad_approval"),
    ("an escalation that never was", {"escalation": "esc_" + "0" * 32}, "approval_unknown"),
    ("another ladder", {"ladder": "other"}, "approval_ladder"),
    ("other policies", {"ids": ["limits.payment.max"]}, "approval_ladder"),
    ("a policy too few", {"ids": []}, "bad_approval"),
    ("the rung before", {"rung": 1}, "approval_rung"),
    ("the rung after", {"rung": 3}, "approval_rung"),
    ("no rung", {"rung": 0}, "bad_approval"),
    ("a rung beyond all ladders", {"rung": 9}, "bad_approval"),
    ("neither yes nor no", {"verdict": "maybe"}, "bad_approval"),
    ("another person's name", {"person": "clara"}, "not_authorised"),
    ("a stranger's name", {"person": "nobody"}, "not_authorised"),
    ("another action", {"action": OTHER}, "approval_mismatch"),
    ("another request", {"request": OTHER}, "approval_mismatch"),
    ("another policy", {"bundle": OTHER}, "approval_mismatch"),
    ("another mandate", {"mandate": OTHER}, "approval_mismatch"),
    ("a cent less", {"terms": {**TERMS, "amount": LARGE - 1}}, "approval_mismatch"),
    ("another currency", {"terms": {**TERMS, "currency": "usd"}}, "approval_mismatch"),
    ("another payee", {"terms": {**TERMS, "payee": "borealis-hosting"}}, "approval_mismatch"),
    ("more time", {"not_after": 4_102_444_800_000_000}, "approval_mismatch"),
    ("less time", {"not_after": 1}, "approval_mismatch"),
    ("a member more", {"note": "hurry"}, "bad_approval"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "code"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_signed_answer_with_one_member_changed(siege: Siege, changes: dict[str, Any], code: str) -> None:
    """Each member is bound: signed anew by the right person it is refused for what it says, unsigned for its bytes."""
    genuine = siege.answer()
    altered = {**genuine, "approval": {**genuine["approval"], **changes}}
    assert siege.code(altered) == (code if code == "bad_approval" else "bad_signature")
    if code != "bad_approval":
        key = load_private(siege.made.people["dora"])
        assert siege.code(sign_approval(altered["approval"], key)) == code


def test_every_member_is_changed_above(siege: Siege) -> None:
    """The list is complete: there is no member of the document whose change nobody tried."""
    assert {name for _, changes, _ in WRONG for name in changes} - {"note"} == set(siege.answer()["approval"])


@pytest.mark.parametrize("bits", [(0, 5), pytest.param(tuple(range(7)), marks=pytest.mark.slow)])
def test_an_answer_with_one_byte_changed(siege: Siege, bits: tuple[int, ...]) -> None:
    """Every byte of the signed document, its key and its signature, in each of these bits: no other answer counts."""
    genuine = siege.answer()
    raw = canon(genuine)
    tried, codes = 0, set()
    for place in range(len(raw)):
        for bit in bits:
            altered = bytearray(raw)
            altered[place] ^= 1 << bit
            try:
                body = orjson.loads(altered)
            except orjson.JSONDecodeError:
                continue
            if not isinstance(body, dict) or body == genuine:
                continue
            tried += 1
            codes.add(siege.code(body))
    assert tried > len(bits) * len(raw) * 3 // 7
    assert codes >= {"bad_signature", "bad_approval", "bad_key"}
    assert codes <= {"bad_signature", "bad_approval", "bad_key", "unknown_argument", "bad_encoding"}


@pytest.mark.parametrize(
    ("person", "code"),
    [
        ("emil", "approval_not_eligible"),  # no role of any rung
        ("anna", "approval_not_eligible"),  # of the rung before
        ("treasurer", "approval_same_person"),  # owns the agent and wrote the policy
    ],
)
def test_the_wrong_person(siege: Siege, person: str, code: str) -> None:
    """With their own key, about exactly what is asked, and all the same not theirs to answer."""
    assert siege.code(siege.answer(person)) == code


def test_a_key_that_is_nobody_s(siege: Siege) -> None:
    """A fresh key signs well and speaks for nobody."""
    assert siege.code(sign_approval(siege.answer()["approval"], generate())) == "not_authorised"
    genuine = siege.answer()
    assert siege.code({**genuine, "key": str(public_of(generate()))}) == "bad_signature"


def test_late_and_replayed(tmp_path: Path) -> None:
    """After the end of all rungs; after the answer that decided; and for another payment that looks the same."""
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1, LARGE)
        first = signed_answer(made, only(handle), person="anna")
        handle.call("answer", first)
        second = signed_answer(made, only(handle), person="controller")
        handle.call("answer", second)
        pay(handle, 2, LARGE)
        siege = Siege(tmp_path / "d", handle, made, only(handle), Provider())
        assert siege.code(first) == siege.code(second) == "approval_closed"
        as_if = {**first["approval"], "escalation": siege.asked["escalation"],
                 "ids": siege.asked["ladders"]["finance"]}  # fmt: skip
        assert siege.code(sign_approval(as_if, load_private(made.people["anna"]))) == "approval_mismatch"
        clock.advance(7 * 86_400)
        tick(handle)
        assert siege.code(siege.answer("anna")) == "approval_expired"
    assert unsound(tmp_path / "d") == []
