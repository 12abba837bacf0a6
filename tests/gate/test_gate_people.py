"""Keys enrolled and removed by record, and absences, at the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rig import Provider, edited, hold, kinds, make, pay, rebuilt_equally, signed_answer, unsound, waiting
from soft_passkey import SoftPasskey

import countermark
from countermark.authority import (
    activate,
    build_approval,
    challenge_of,
    clear,
    generate,
    load_private,
    public_of,
    save_private,
    sign,
    sign_absence,
    sign_approval,
    sign_enrolment,
    sign_removal,
)
from countermark.connectors.stripe import DRAFTS
from countermark.model.canon import canon
from countermark.model.clock import US, FakeClock
from countermark.model.digest import APPROVAL, ENROLMENT, ENROLMENT_PROOF
from countermark.model.errors import CountermarkError
from countermark.policy import compile_bundle, with_keys

NOW = 1_800_000_000 * US
DAY = 86_400 * US
THREE = {
    "[agents.treasury]": """[people.auditor]
name = "Auditor"
roles = ["operator"]
key = "{{KEY:auditor}}"

[people.director]
name = "Director"
roles = ["principal"]
key = "{{KEY:director}}"

[agents.treasury]""",
}
TEST = {'author = "treasurer"': 'author = "treasurer"\ntest = true'}


class Stand:
    """An open deployment of four people: treasurer and director grant, auditor operates, controller answers."""

    def __init__(self, root: Path, changes: Mapping[str, str] | None = None) -> None:
        self.clock, self.provider = FakeClock(NOW), Provider()
        self.root, self.made = root, make(root, self.provider, clock=self.clock, changes={**THREE, **(changes or {})})
        self.handle = self.open()

    def open(self) -> countermark.Deployment:
        return hold(self.root, self.provider, self.clock)

    def key(self, person: str) -> Any:
        return load_private(self.made.people[person])

    def order(self, key: str, person: str = "controller", **changes: Any) -> dict[str, Any]:
        return {"v": 1, "deployment": self.made.deployment, "person": person, "key": key, "label": "phone",
                "nonce": "ab" * 16, "not_after": NOW + DAY, **changes}  # fmt: skip

    def enrol(self, order: Mapping[str, Any], by: tuple[str, ...], proof: Any = None) -> Any:
        signed = [sign_enrolment(order, person, self.key(person)) for person in by]
        return self.handle.call("key.enrol", {"enrolment": dict(order), "signed": signed, "proof": proof})

    def passkey(self, passkey: SoftPasskey, by: tuple[str, ...] = ("controller",), **changes: Any) -> Any:
        order = self.order(passkey.text, **changes)
        return self.enrol(order, by, passkey.sign(ENROLMENT_PROOF, canon(order)))

    def remove(self, key: str, person: str = "controller", by: str = "controller", private: Any = None) -> Any:
        order = {"v": 1, "deployment": self.made.deployment, "person": person, "key": key, "by": by, "reason": "lost"}
        return self.handle.call("key.remove", sign_removal(order, private or self.key(by)))

    def away(self, by: tuple[str, ...], **changes: Any) -> Any:
        order = {"v": 1, "deployment": self.made.deployment, "person": "controller", "stands_in": "auditor",
                 "from": NOW, "until": NOW + DAY, **changes}  # fmt: skip
        return self.handle.call(
            "absence.set", {"absence": order, "signed": [sign_absence(order, one, self.key(one)) for one in by]}
        )

    def asked(self, number: int) -> dict[str, Any]:
        pay(self.handle, number, 600_000)
        return waiting(self.handle)[-1]


@pytest.fixture
def stand(tmp_path: Path) -> Any:
    found = Stand(tmp_path / "d")
    yield found
    found.handle.close()
    assert unsound(found.root) == []
    assert rebuilt_equally(found.root)


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(CountermarkError) as caught:
        act()
    return caught.value.code


def test_an_enrolled_passkey_answers_for_its_person(stand: Stand) -> None:
    """A person enrols a passkey with the key they have; what it signs counts as theirs, also after a restart."""
    passkey = SoftPasskey(1)
    parked = stand.asked(1)
    document = build_approval(parked, deployment=stand.made.deployment, ladder="finance", verdict="approve",
                              person="controller")  # fmt: skip
    body = {"approval": document, "key": passkey.text, "sig": passkey.assertion(challenge_of(APPROVAL, document))}
    assert code_of(lambda: stand.handle.call("answer", body)) == "not_authorised"
    assert stand.passkey(passkey)["person"] == "controller"
    stand.handle.close()
    stand.handle = stand.open()
    assert stand.handle.call("answer", body)["state"] == "approved"
    assert len(stand.provider.effects) == 1
    row = next(one for one in stand.handle.call("people", {}) if one["person"] == "controller")
    assert [key["kind"] for key in row["keys"]] == ["ed25519", "passkey"]
    assert row["keys"][1]["enrolled"]["by"] == ["controller"]


def test_two_others_may_enrol_a_key_and_one_may_not(stand: Stand) -> None:
    """For somebody who lost every key two others sign, of the right roles; one does only in a test deployment."""
    order = stand.order(str(public_of(generate())))
    for by in (("treasurer",), (), ("treasurer", "treasurer"), ("treasurer", "controller"), ("controller", "treasurer"),
               ("controller", "controller")):  # fmt: skip
        assert code_of(lambda by=by: stand.enrol(order, by)) == "four_eyes", by  # type: ignore[misc]
    assert stand.enrol(order, ("treasurer", "auditor"))["person"] == "controller"


def test_an_approver_vouches_for_nobody(stand: Stand) -> None:
    """Somebody who neither grants nor operates speaks for nobody else's keys."""
    order = stand.order(str(public_of(generate())), person="director")
    assert code_of(lambda: stand.enrol(order, ("treasurer", "controller"))) == "four_eyes"


def test_one_other_is_enough_in_a_test_deployment(tmp_path: Path) -> None:
    """The signed policy says that nothing real moves; then one other person may enrol."""
    stand = Stand(tmp_path / "d", TEST)
    order = stand.order(str(public_of(generate())))
    assert stand.enrol(order, ("auditor",))["person"] == "controller"
    assert code_of(lambda: stand.enrol(stand.order(str(public_of(generate()))), ())) == "four_eyes"
    stand.handle.close()
    assert unsound(stand.root) == []


def test_a_passkey_proves_that_somebody_holds_it(stand: Stand) -> None:
    """Without an assertion over this very document, nobody enrols a passkey; another domain's or page's does not do."""
    passkey, order = SoftPasskey(2), stand.order(SoftPasskey(2).text)
    proof = passkey.sign(ENROLMENT_PROOF, canon(order))
    wrong = {
        "bad_enrolment": None,
        "bad_signature": passkey.sign(ENROLMENT, canon(order)),
    }
    for code, sig in wrong.items():
        assert code_of(lambda sig=sig: stand.enrol(order, ("controller",), sig)) == code  # type: ignore[misc]
    for changed in ({**order, "label": "laptop"}, {**order, "person": "treasurer"}, {**order, "nonce": "cd" * 16}):
        by = (changed["person"],)
        assert code_of(lambda c=changed, b=by: stand.enrol(c, b, proof)) == "bad_signature"  # type: ignore[misc]
    file_key = stand.order(str(public_of(generate())))
    assert code_of(lambda: stand.enrol(file_key, ("controller",), proof)) == "bad_enrolment"


def test_an_enrolment_is_bound_to_deployment_and_time(stand: Stand) -> None:
    """Another deployment's, a late one, and one for somebody whom the policy does not know are refused."""
    key = str(public_of(generate()))
    for code, changes in (
        ("not_authorised", {"deployment": "other"}), ("enrolment_late", {"not_after": NOW}),
        ("enrolment_late", {"not_after": NOW + 8 * DAY}),
    ):  # fmt: skip
        assert code_of(lambda c=changes: stand.enrol(stand.order(key, **c), ("controller",))) == code  # type: ignore[misc]
    stranger = stand.order(key, person="nobody")
    assert code_of(lambda: stand.enrol(stranger, ("treasurer", "auditor"))) == "not_authorised"


def test_one_key_is_one_persons_for_ever(stand: Stand) -> None:
    """A key that signs for somebody, that an agent has, or that was removed, is enrolled for nobody."""
    private = generate()
    key = str(public_of(private))
    stand.enrol(stand.order(key), ("controller",))
    again = stand.order(key, nonce="cd" * 16)
    assert code_of(lambda: stand.enrol(again, ("controller",))) == "key_taken"
    assert code_of(lambda: stand.enrol({**again, "person": "treasurer"}, ("treasurer",))) == "key_taken"
    known = str(public_of(stand.key("auditor")))
    assert code_of(lambda: stand.enrol(stand.order(known), ("controller",))) == "key_taken"
    stand.remove(key)
    assert code_of(lambda: stand.enrol(again, ("controller",))) == "key_taken"
    assert code_of(lambda: stand.enrol({**again, "person": "treasurer"}, ("treasurer",))) == "key_taken"
    assert code_of(lambda: stand.remove(key)) == "not_authorised"


def test_a_removed_key_signs_nothing_more(stand: Stand) -> None:
    """From the removal on, an answer by the lost key is nobody's; the other key goes on."""
    private = generate()
    stand.enrol(stand.order(str(public_of(private))), ("controller",))
    parked = stand.asked(1)
    lost = signed_answer(stand.made, parked)
    stand.remove(str(public_of(stand.key("controller"))), private=private)
    assert code_of(lambda: stand.handle.call("answer", lost)) == "not_authorised"
    assert stand.handle.call("answer", sign_approval(lost["approval"], private))["state"] == "approved"


def test_who_may_remove_a_key(stand: Stand) -> None:
    """The person, or one other who grants or operates; nobody else, and not what the person does not have."""
    second = generate()
    stand.enrol(stand.order(str(public_of(second))), ("controller",))
    auditors = str(public_of(stand.key("auditor")))
    assert code_of(lambda: stand.remove(auditors, "auditor", "controller")) == "not_authorised"
    assert code_of(lambda: stand.remove(auditors, "controller", "treasurer")) == "not_authorised"
    assert stand.remove(str(public_of(second)), "controller", "auditor")["person"] == "controller"


def test_somebody_can_always_grant(stand: Stand) -> None:
    """The last key of the last principal stays."""
    treasurer, director = stand.key("treasurer"), stand.key("director")
    stand.remove(str(public_of(director)), "director", "director")
    own = str(public_of(treasurer))
    assert code_of(lambda: stand.remove(own, "treasurer", "treasurer")) == "last_key"
    second = generate()
    stand.enrol(stand.order(str(public_of(second)), person="treasurer"), ("treasurer",))
    assert stand.remove(own, "treasurer", "treasurer")["person"] == "treasurer"
    killed = stand.handle.call("kill.set", {"kind": "deployment", "reason": "test"})["kill"]
    order = {"deployment": stand.made.deployment, "kill": killed, "person": "treasurer", "reason": "tested"}
    assert code_of(lambda: stand.handle.call("kill.clear", clear(order, treasurer))) == "not_authorised"
    assert stand.handle.call("kill.clear", clear(order, second)) == killed


def _activated(stand: Stand, changes: Mapping[str, str], private: Any, keys: Mapping[str, str] | None = None) -> Any:
    own = {name: str(public_of(stand.key(name))) for name in stand.made.people}
    bundle = compile_bundle(
        with_keys(edited({**THREE, **changes}), {**own, **(keys or {})}).items(), {"stripe": DRAFTS}
    )
    order = {"deployment": stand.made.deployment, "bundle": bundle.digest, "author": "treasurer",
             "activator": "treasurer", "previous": stand.handle.call("status", {})["activation"]}  # fmt: skip
    return stand.handle.call("activate", {**activate(order, private), "document": bundle.document})


def test_enrolled_keys_outlive_a_new_policy_and_judge_it(stand: Stand) -> None:
    """An enrolled key activates the next policy and stays in force under it; a removed one does neither."""
    second = generate()
    stand.enrol(stand.order(str(public_of(second)), person="treasurer"), ("treasurer",))
    _activated(stand, {"flag_above = 200000": "flag_above = 200001"}, second)
    stand.remove(str(public_of(stand.key("treasurer"))), "treasurer", "treasurer", second)
    first = lambda: _activated(stand, {"flag_above = 200000": "flag_above = 200002"}, stand.key("treasurer"))  # noqa: E731
    assert code_of(first) == "not_authorised"
    _activated(stand, {"flag_above = 200000": "flag_above = 200002"}, second)
    row = next(one for one in stand.handle.call("people", {}) if one["person"] == "treasurer")
    assert [key["key"] for key in row["keys"]] == [str(public_of(second))]  # the policy still lists the removed one


def test_a_policy_gives_an_enrolled_key_to_nobody_else(stand: Stand) -> None:
    """A new policy that lists an enrolled key for another person, or for an agent, is refused."""
    second = str(public_of(generate()))
    stand.enrol(stand.order(second), ("controller",))
    treasurer = stand.key("treasurer")
    assert code_of(lambda: _activated(stand, {}, treasurer, {"auditor": second})) == "key_taken"
    agent = {'[agents.treasury]\nowner = "treasurer"': f'[agents.treasury]\nowner = "treasurer"\nkeys = ["{second}"]'}
    assert code_of(lambda: _activated(stand, agent, treasurer)) == "key_taken"


def test_keys_of_somebody_who_left_end_for_good(stand: Stand) -> None:
    """Who is not in the new policy loses what was enrolled, and does not get it back by returning."""
    second = generate()
    stand.enrol(stand.order(str(public_of(second)), person="auditor"), ("auditor",))
    gone = THREE["[agents.treasury]"].replace("people.auditor", "people.clerk")
    _activated(stand, {"[agents.treasury]": gone}, stand.key("treasurer"))
    _activated(stand, {}, stand.key("treasurer"))
    row = next(one for one in stand.handle.call("people", {}) if one["person"] == "auditor")
    assert [key["key"] for key in row["keys"]] == [str(public_of(stand.key("auditor")))]


def test_an_absence_names_who_answers(stand: Stand) -> None:
    """Set by the person, or by two principals; the newest word stands."""
    assert stand.away(("controller",))["stands_in"] == "auditor"
    assert code_of(lambda: stand.away(("treasurer",))) == "four_eyes"
    assert code_of(lambda: stand.away(("treasurer", "auditor"))) == "four_eyes"
    assert code_of(lambda: stand.away(("controller",), stands_in="controller")) == "bad_absence"
    assert code_of(lambda: stand.away(("controller",), until=NOW + 400 * DAY)) == "bad_absence"
    assert code_of(lambda: stand.away(("controller",), until=NOW)) == "bad_absence"
    assert code_of(lambda: stand.away(("controller",), stands_in="nobody")) == "not_authorised"
    assert stand.away(("treasurer", "director"), until=NOW + 2 * DAY)["seq"] > 0
    row = next(one for one in stand.handle.call("people", {}) if one["person"] == "controller")
    assert row["absence"] == {"stands_in": "auditor", "from": NOW, "until": NOW + 2 * DAY}
    assert kinds(stand.root).count("absence.set") == 2


def test_a_key_file_of_the_new_key_is_what_signs(stand: Stand, tmp_path: Path) -> None:
    """What is enrolled is the text; the private half stays where it was made."""
    private = generate()
    save_private(tmp_path / "second.pem", private)
    stand.enrol(stand.order(str(public_of(private))), ("controller",))
    parked = stand.asked(1)
    document = build_approval(parked, deployment=stand.made.deployment, ladder="finance", verdict="refuse",
                              person="controller")  # fmt: skip
    signed = {"approval": document, "key": str(public_of(private)), "sig": sign(private, APPROVAL, document)}
    assert stand.handle.call("answer", signed)["state"] == "refused"


def test_a_stand_in_answers_while_somebody_is_away(stand: Stand) -> None:
    """With the roles of who is away, as themselves, from the first moment to before the last; not otherwise."""
    parked = stand.asked(1)
    answer = signed_answer(stand.made, parked, person="auditor")
    assert code_of(lambda: stand.handle.call("answer", answer)) == "approval_not_eligible"
    stand.away(("controller",), **{"from": NOW + 10 * US, "until": NOW + 20 * US})
    assert code_of(lambda: stand.handle.call("answer", answer)) == "approval_not_eligible"
    stand.clock.advance(10)
    assert waiting(stand.handle)[-1]["rungs"]["finance"]["people"] == ["auditor", "controller"]
    assert stand.handle.call("answer", answer)["state"] == "approved"
    second = stand.asked(2)
    stand.clock.advance(10)
    late = signed_answer(stand.made, second, person="auditor")
    assert code_of(lambda: stand.handle.call("answer", late)) == "approval_not_eligible"
    assert stand.handle.call("answer", signed_answer(stand.made, second))["state"] == "approved"


def test_who_stands_in_for_the_owner_does_not_answer(stand: Stand) -> None:
    """An absence makes nobody eligible whom the absent person could not have been."""
    stand.away(("treasurer",), person="treasurer", stands_in="controller")
    stand.away(("treasurer", "director"), person="controller", stands_in="auditor")
    parked = stand.asked(1)
    refused = signed_answer(stand.made, parked, person="director")
    assert code_of(lambda: stand.handle.call("answer", refused)) == "approval_not_eligible"
    assert waiting(stand.handle)[-1]["rungs"]["finance"]["people"] == ["auditor", "controller"]


def test_a_person_and_their_stand_in_are_one_of_a_quorum(tmp_path: Path) -> None:
    """Where two must answer, who is away and who stands in for them do not make two."""
    director = 'name = "Director"\nroles = ["principal"'
    people = THREE["[agents.treasury]"].replace(director, director + ', "approver"')
    stand = Stand(tmp_path / "d", {"[agents.treasury]": people, "quorum = 1": "quorum = 2"})
    stand.away(("controller",))
    parked = stand.asked(1)
    assert stand.handle.call("answer", signed_answer(stand.made, parked, person="auditor"))["state"] == "pending"
    own = signed_answer(stand.made, parked, person="controller")
    assert code_of(lambda: stand.handle.call("answer", own)) == "approval_same_person"
    other = signed_answer(stand.made, parked, person="director")
    assert stand.handle.call("answer", other)["state"] == "approved"
    stand.handle.close()
    assert unsound(stand.root) == []
    assert rebuilt_equally(stand.root)
