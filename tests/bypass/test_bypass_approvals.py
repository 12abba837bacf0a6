"""What waits for people, used by agents against the people who are asked and against each other."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from siege import ASK, Answer, Siege, args_for, escalation_of, signed_answer

AT_ONCE = 16


@pytest.fixture(scope="module")
def clerk(siege: Siege) -> str:
    """A token of a second agent of the same owner."""
    return siege.issued("clerk")[0]


def many(what: object, count: int = AT_ONCE) -> list[Answer]:
    """The same call from many threads at once."""
    assert callable(what)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(what, range(count)))


def test_one_approval_many_times_at_once(siege: Siege) -> None:
    """Prevented: one approval handed in many times at once: the first is taken, and it is paid once."""
    asked = escalation_of(siege.act(args_for("AT-ONCE-1", ASK)))
    signed = signed_answer(siege.made, siege.waiting(asked))
    found = many(lambda _: siege.ask("POST", f"/v1/escalations/{asked}/answers", signed, token=""))
    assert sorted(answer.status for answer in found) == [200] + [409] * (AT_ONCE - 1)
    assert len(siege.paid("AT-ONCE-1")) == 1


def test_a_yes_and_a_no_at_once(siege: Siege) -> None:
    """Prevented: a yes and a no at the same moment: one of them is the answer, and the books agree with it."""
    for number in range(4):
        invoice = f"YES-NO-{number}"
        asked = escalation_of(siege.act(args_for(invoice, ASK)))
        parked = siege.waiting(asked)
        target = f"/v1/escalations/{asked}/answers"
        signed = [signed_answer(siege.made, parked, verdict) for verdict in ("approve", "refuse")]
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda one, to=target: siege.ask("POST", to, one, token=""), signed))
        (taken,) = (answer for answer in found if answer.status == 200)
        assert [answer.code for answer in found if answer.status != 200] == ["approval_closed"]
        assert len(siege.paid(invoice)) == (taken.json["state"] == "approved")


def test_one_question_of_several_agents(siege: Siege, clerk: str) -> None:
    """Prevented: two agents that ask about one invoice at once, in other spellings: people are asked once."""
    spellings = ("SHOP-1", "shop-1", "Shop - 1", "SHOP -1")
    tokens = (siege.token, clerk)
    found = many(lambda n: siege.act(args_for(spellings[n % 4], ASK), token=tokens[n % 2]))
    assert sorted(answer.status for answer in found) == [202] + [403] * (AT_ONCE - 1)
    assert {answer.code for answer in found if answer.status == 403} == {"already_waiting"}
    (asked,) = (escalation_of(answer) for answer in found if answer.status == 202)
    assert siege.answer(asked, "refuse").json["state"] == "refused"
    for amount in (ASK, 1):
        for token in tokens:
            assert siege.act(args_for("shop-1", amount), token=token).code == "refused_by_person"
    assert siege.paid("SHOP-1") == []


def test_questions_without_end(siege: Siege, clerk: str) -> None:
    """Prevented: an agent that has people asked without end, so that nobody finds another agent's question: each agent
    has its share of the lists, and the other one's is answered and paid."""
    asked = escalation_of(siege.act(args_for("DROWNED-1", ASK), token=clerk))
    flood = many(lambda n: siege.act(args_for(f"FLOOD-{n}-{os.urandom(4).hex()}", ASK)), 64)
    assert {answer.status for answer in flood} == {202}
    listed = siege.person_asks("GET", "/v1/escalations?limit=20&share=20").json["escalations"]
    assert asked in [one["escalation"] for one in listed]
    assert siege.answer(asked).json["result"]["status"] == "confirmed"
    assert len(siege.paid("DROWNED-1")) == 1
    for answer in flood:
        assert siege.answer(escalation_of(answer), "refuse").json["state"] == "refused"


def test_an_invoice_that_is_taken_by_another_agent(siege: Siege, clerk: str) -> None:
    """Not covered: an agent that pays a cent of another one's invoice, or asks people about it, keeps the other from
    paying it; the refusal names what stands in the way."""
    assert siege.act(args_for("SQUAT-1", 1), token=clerk).status == 200
    assert siege.act(args_for("SQUAT-1", 10_000)).code == "duplicate_obligation"
    assert siege.act(args_for("SQUAT-2", ASK), token=clerk).status == 202
    assert siege.act(args_for("SQUAT-2", 10_000)).code == "already_waiting"
