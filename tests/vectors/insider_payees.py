"""Orders about payees and what stands behind an account (docs/spec/record.md): an honest week, and insiders."""

from __future__ import annotations

from typing import Any

from acts import Action
from build import DEPLOYMENT, Key, doc_digest, pseudonym, seeded
from bundle import AGE, ASK_TREASURY, FACT_TYPES, LIMITS, PERMIT, fact_of, person_key, plain_bundle, rules
from enrolments import away
from fields import payment
from lies import FOREIGN, OTHER, lie, put
from rungs import ends_of
from scribe import ALLOWED, Alter, Answer, Escalation, Story
from story import TRANSFER, args_of, ask, opened, pay, run_of

DETAILS = fact_of("account_age", "details", "floor", "", ["payee"], over_us=0)
COOL_OFF = """\
@id("cool-off") @escalate("treasury")
forbid (principal, action in Action::"money", resource)
when { context.facts.account_age.known && context.facts.account_age has age_s &&
       context.facts.account_age.age_s < Limits::"limits".cool_off };
"""
HOUR = 3_600
NUMBERS = {"ask_above": LIMITS["ask_above"], "cool_off": HOUR}
COOLING: Answer = ("escalate", "policy", "needs_approval", ["cool-off"])
A, B = ({"digest": doc_digest("reference", [{"last4": last}]), "last4": last} for last in ("7712", "9921"))


def keeping(note: str = "keeping", resolve: bool = False, accounts: dict[str, str] | None = None) -> dict[str, Any]:
    """A bundle with a cool-off, and people who keep its payees: the director and the treasurer, who may answer too."""
    bundle = plain_bundle(note)
    compiled = bundle["compiled"]
    for person in compiled["people"]:
        if person["id"] in ("director", "treasurer"):
            person["roles"] = [*person["roles"], "payees"]
    compiled["payees"].append({"id": "cirrus", "name": "cirrus", "account": "acct-cirrus"})
    for payee in compiled["payees"]:
        payee["account"] = (accounts or {}).get(payee["id"], payee["account"])
    names = [payee["id"] for payee in compiled["payees"]]
    tools = [tool | {"facts": []} for tool in compiled["tools"]]
    types = FACT_TYPES | {"account_age": AGE}
    compiled |= rules(tools, PERMIT + ASK_TREASURY + COOL_OFF, [DETAILS], types, NUMBERS, names)
    for tool in compiled["tools"]:
        if resolve:
            tool["resolve"] = "destination"
    return bundle


KEPT: dict[str, Any] = {"bundle": keeping()}
READING: dict[str, Any] = {"bundle": keeping(resolve=True)}


def order(
    story: Story,
    payee: str = "aurora",
    account: str = "acct-aurora-2",
    name: str = "",
    person: str = "director",
    key: Key | None = None,
    sign: Alter | None = None,
    alter: Alter | None = None,
    by: str = "",
) -> int:
    """Somebody sets what a payee is paid to; `sign` falsifies the order, `alter` what stands beside it."""
    before = story.register.of(payee)
    details = {
        "v": 1,
        "deployment": DEPLOYMENT,
        "payee": payee,
        "name": name or (before["name"] if before else payee.title()),
        "account": account,
        "previous": story.register.previous(payee),
        "alike": [],
        "reason": "as their letter says",
        "person": person,
        "not_after": story.now + 3_600_000_000,
        "nonce": seeded(f"order/{story.label}/{len(story.log.leaves)}").hex(),
    }
    if sign is not None:
        sign(details)
    key = key or person_key(person)
    old = details["previous"]["account"] if details["previous"] else ""
    body = {"details": details, "key": key.text, "sig": key.sign_doc("payee", details)}
    body |= {"was": _named(old), "now": _named(details["account"])}
    if alter is not None:
        alter(body)
    seq = story.add("payee.changed", by or f"person:{person}", [], body)
    story.register.changed(details, story.now, story.log.digest_of(seq))
    return seq


def _named(account: str) -> str | None:
    return "p:" + pseudonym("payee", account) if account else None


def late(story: Story, number: int, payee: str, answer: Answer = ALLOWED, **more: Any) -> Action:
    """A payment to an account by its end: `pay` writes `acct-` before it."""
    action = pay(story, number, payee=payee, answer=answer, **more)
    if answer == ALLOWED:
        story.settle(action)
    return action


def cooling(story: Story, number: int, payee: str = "aurora-2") -> Escalation:
    args = payment(10_000, payee, f"INV-{number}")
    return story.escalate(run_of(story), f"call-{number}", TRANSFER, args, {"treasury": ["cool-off"]})


def payees() -> Story:
    """Accounts change, cool off, are closed, come back; a payee that no policy names; references that hold and move."""
    story = opened("payees", bundle=keeping())
    late(story, 1, "aurora")
    first = order(story)
    old = ["aurora", f"seq:{first}"]
    pay(story, 2, answer=("deny", "payee", "account_replaced", old))
    question = cooling(story, 3)
    story.answer(question, "controller")
    story.settle(story.again(question, args_of(question), ALLOWED, lifted=["cool-off"]))
    story.wait(HOUR)
    late(story, 4, "aurora-2")
    order(story, name="Aurora Limited", account="acct-aurora-2", person="treasurer")  # a name is no account
    late(story, 5, "aurora-2")
    order(story, "ember", "acct-ember")
    asked = cooling(story, 6, "ember")
    story.answer(asked, "treasurer")  # the director set this one
    story.settle(story.again(asked, payment(10_000, "ember", "INV-6"), ALLOWED, lifted=["cool-off"]))
    story.wait(HOUR)
    late(story, 7, "ember")
    _voided(story)
    closed = order(story, "ember", "")
    pay(story, 9, payee="ember", answer=("deny", "payee", "account_replaced", ["ember", f"seq:{closed}"]))
    order(story, "ember", "acct-ember")
    story.wait(HOUR)
    late(story, 10, "ember")
    story.activate(keeping("moved", accounts={"cirrus": "acct-cirrus-2", "aurora": "acct-nobody"}))
    story.answer(cooling(story, 11, "cirrus-2"), "controller", "refuse")
    story.wait(HOUR)
    late(story, 12, "cirrus-2")
    late(story, 13, "aurora-2")  # the register's account stands, whatever the bundle says of it
    _references(story)
    return story


def _voided(story: Story) -> None:
    """The account changes between question and answer, first of somebody known, then of somebody unknown."""
    question = ask(story, 8, 60_000, "borealis")
    order(story, "borealis", "acct-borealis-9")
    story.answer(question, "controller")
    void = ("deny", "approval", "approval_void", ["payee", "reasons"])
    story.again(question, payment(60_000, "borealis", "INV-8"), void)


def _references(story: Story) -> None:
    story.activate(keeping("reading", resolve=True, accounts={"cirrus": "acct-cirrus-2"}))
    pay(story, 20, answer=("deny", "payee", "account_replaced", _retired(story)), alter=put("reference", value=A))
    unread = ("deny", "payee", "reference_unread", ["destination"])
    pay(story, 21, payee="aurora-2", answer=unread, alter=put("reference", value=None))
    story.settle(read(story, 22))
    moved(story, read(story, 23))
    question = asked_about(story, 24)
    answered(story, question)
    story.settle(again(story, question))


def _retired(story: Story) -> list[str]:
    seqs = [r["seq"] for r in story.log.records if r["kind"] == "payee.changed"]
    return ["aurora", f"seq:{seqs[0]}"]


# --- references ---


def read(story: Story, number: int, payee: str = "aurora-2", reference: Any = A) -> Action:
    """A payment before which the bank account behind the destination was read."""
    return pay(story, number, payee=payee, alter=put("reference", value=reference))


def moved(story: Story, action: Action, now: Any = B, outcome: str = "failed", why: str = "reference_changed") -> int:
    """Nothing was sent, since something else stood there."""

    def unsent(settled: dict[str, Any]) -> None:
        settled |= {"code": "not_sent", "http_status": 0, "request_id": why, "response": "", "attempts": 0}
        if now is not None:
            settled["reference"] = now

    return story.settle(action, outcome, alter=unsent)


def asked_about(story: Story, number: int, payee: str = "aurora-2", reference: Any = A, raised: Any = A) -> Escalation:
    """A question to people with the bank account that they see."""
    args = payment(60_000, payee, f"INV-{number}")
    ids = ["ask-treasury"]
    salts = f"{story.label}/{len(story.log.leaves)}"
    decided = story.decide(
        run_of(story), f"call-{number}", TRANSFER, args, ("escalate", "policy", "needs_approval", ids),
        alter=put("reference", value=reference),
    )  # fmt: skip
    body, digest = decided.body, story.log.digest_of(decided.seq)
    question = {
        "escalation": "esc_" + digest[7:39],
        **{k: body[k] for k in ("id", "agent", "run", "action", "request", "terms", "bundle")},
        "decided": decided.seq,
        "decided_digest": digest,
        "ladders": {"treasury": ids},
        "mandate": body["mandates"][0],
        "reference": raised,
    }
    ends = ends_of(story.bundles[-1]["compiled"], "treasury", story.now)
    question |= {"due": {"treasury": ends[0]}, "not_after": ends[-1]}
    story.now -= 1_000_000
    streams = story.streams(body["agent"], body["run"], body["terms"]["payee"])
    story.add("escalation.raised", "gate", streams, question)
    return Escalation(decided, question, salts, dict(question["due"]))


def answered(story: Story, question: Escalation, reference: Any = A["digest"], person: str = "controller") -> int:
    def bind(doc: dict[str, Any]) -> None:
        if reference is not None:
            doc["reference"] = reference

    return story.answer(question, person, alter=bind)


def again(story: Story, question: Escalation, reference: Any = A) -> Action:
    args = payment(60_000, "aurora-2" if story.register.records else "aurora", "")
    args["invoice"] = question.action.body["args"]["invoice"]
    args["destination"] = question.action.body["args"]["destination"]
    return story.again(question, args, ALLOWED, lifted=["ask-treasury"], alter=put("reference", value=reference))


# --- orders that are none ---


@lie("V10.payee", **KEPT)
def payee_changed_by_a_foreign_key(story: Story) -> int:
    return order(story, key=FOREIGN)


@lie("V10.payee", **KEPT)
def payee_changed_by_somebody_without_the_role(story: Story) -> int:
    return order(story, person="controller")


@lie("V10.payee", people={"stranger": FOREIGN.text}, **KEPT)
def payee_changed_by_somebody_not_in_the_bundle(story: Story) -> int:
    return order(story, person="stranger", key=FOREIGN)


@lie("V10.payee", **KEPT)
def payee_changed_otherwise_than_signed(story: Story) -> int:
    return order(story, alter=put("details", "account", value="acct-of-the-insider"))


@lie("V10.payee", **KEPT)
def payee_order_for_another_deployment(story: Story) -> int:
    return order(story, sign=put("deployment", value="elsewhere"))


@lie("V10.payee", **KEPT)
def payee_order_after_its_time(story: Story) -> int:
    return order(story, sign=put("not_after", value=story.now))


@lie("V10.payee", **KEPT)
def payee_order_replayed(story: Story) -> int:
    # The account that was replaced comes back by the old letter.
    first = order(story)
    order(story, account="acct-aurora-3")
    return story.replay(first)


@lie("V10.payee", **KEPT)
def payee_order_over_details_that_are_not_the_present_ones(story: Story) -> int:
    order(story)
    return order(story, account="acct-aurora-3", sign=put("previous", "record", value=OTHER))


@lie("V10.payee", **KEPT)
def payee_given_the_account_of_another(story: Story) -> int:
    return order(story, "ember", "acct-borealis")


@lie("V10.payee", **KEPT)
def payee_given_the_id_of_another_as_account(story: Story) -> int:
    return order(story, "ember", "borealis")


@lie("V10.payee", **KEPT)
def stopped_account_given_to_another_payee(story: Story) -> int:
    # Payments to aurora were stopped; its account comes back under another name.
    order(story)
    story.kill("payee", "aurora")
    return order(story, "ember", "acct-aurora")


@lie("V10.payee", **KEPT)
def stopped_stranger_made_a_payee(story: Story) -> int:
    story.kill("payee", "p:" + pseudonym("payee", "acct-stranger"))
    return order(story, "ember", "acct-stranger")


@lie("V09.bundle", **KEPT)
def policy_that_gives_the_account_of_a_registered_payee(story: Story) -> int:
    order(story, "ember", "acct-ember")
    return story.activate(keeping("clashing", accounts={"borealis": "acct-ember"}))


@lie("V04.record", **KEPT)
def payee_order_laid_to_the_gate(story: Story) -> int:
    return order(story, by="gate")


@lie("V12.terms", **KEPT)
def replaced_account_under_a_new_pseudonym(story: Story) -> int:
    # So that payments to the old account, whose pseudonym is another, go on.
    pay(story, 1, payee="stranger", answer=("deny", "policy", "not_permitted", []))
    order(story, "ember", "acct-stranger", alter=put("now", value="p:" + "0" * 32))
    return len(story.log.leaves) - 1


@lie("V12.terms", **KEPT)
def replaced_account_that_is_not_said(story: Story) -> int:
    return order(story, alter=put("was", value=None))


# --- what follows from orders ---


@lie("V14.decision", **KEPT)
def replaced_account_refused_for_another_reason(story: Story) -> int:
    order(story)
    return pay(story, 1, answer=("deny", "policy", "not_permitted", [])).seq


@lie("V12.terms", **KEPT)
def replaced_account_paid_as_the_payees(story: Story) -> int:
    order(story)
    action = pay(story, 1, derive=put("terms", "payee", value="aurora"), answer=COOLING)
    return action.seq


@lie("V14.decision", **KEPT)
def replaced_account_paid(story: Story) -> int:
    order(story)
    action = pay(story, 1)
    story.settle(action)
    return action.seq


@lie("V14.decision", **KEPT)
def closed_payee_refused_by_another_order(story: Story) -> int:
    order(story, "borealis", "")
    return pay(story, 1, payee="borealis", answer=("deny", "payee", "account_replaced", ["borealis", "seq:1"])).seq


@lie("V13.fact", **KEPT)
def account_made_older_than_it_is(story: Story) -> int:
    order(story)
    action = pay(story, 1, payee="aurora-2", alter=put("facts", "account_age", value={"known": True, "age_s": HOUR}))
    story.settle(action)
    return action.seq


@lie("V13.fact", **KEPT)
def account_whose_age_is_said_to_be_unknown(story: Story) -> int:
    order(story)
    action = pay(story, 1, payee="aurora-2", alter=put("facts", "account_age", value={"known": False}))
    story.settle(action)
    return action.seq


@lie("V14.decision", **KEPT)
def cool_off_ignored(story: Story) -> int:
    order(story)
    action = pay(story, 1, payee="aurora-2")
    story.settle(action)
    return action.seq


@lie("V10.separation", **KEPT)
def approval_by_who_set_the_account(story: Story) -> int:
    order(story, person="treasurer")
    question = cooling(story, 1)
    seq = story.answer(question, "treasurer")
    story.settle(story.again(question, payment(10_000, "aurora-2", "INV-1"), ALLOWED, lifted=["cool-off"]))
    return seq


@lie("V10.separation", **KEPT)
def approval_by_who_stands_in_for_who_set_the_account(story: Story) -> int:
    order(story, person="treasurer")
    away(story, stands_in="activator")
    question = cooling(story, 1)
    seq = story.answer(question, "activator")
    story.settle(story.again(question, payment(10_000, "aurora-2", "INV-1"), ALLOWED, lifted=["cool-off"]))
    return seq


@lie("V10.separation", **KEPT)
def approval_by_who_set_the_account_before_a_new_name(story: Story) -> int:
    order(story, person="treasurer")
    order(story, name="Aurora Limited", account="acct-aurora-2")
    question = cooling(story, 1)
    seq = story.answer(question, "treasurer")
    story.settle(story.again(question, payment(10_000, "aurora-2", "INV-1"), ALLOWED, lifted=["cool-off"]))
    return seq


@lie("V14.decision", **KEPT)
def approved_for_an_account_that_was_replaced_since(story: Story) -> int:
    # Approval substitution: people said yes to aurora's account, which is another one by now.
    question = ask(story, 1, 60_000)
    order(story, name="Aurora Limited", account="acct-aurora")
    story.answer(question, "controller")
    action = story.again(question, args_of(question), ALLOWED, lifted=["ask-treasury"])
    story.settle(action)
    return action.seq


# --- references that are none ---


@lie("V14.decision", **READING)
def allowed_with_a_reference_that_was_not_read(story: Story) -> int:
    action = read(story, 1, "aurora", None)
    story.settle(action)
    return action.seq


@lie("V12.terms", **READING)
def reference_left_out_of_a_decision(story: Story) -> int:
    action = pay(story, 1)
    story.settle(action)
    return action.seq


@lie("V12.terms", **KEPT)
def reference_of_a_tool_that_reads_none(story: Story) -> int:
    action = read(story, 1, "aurora")
    story.settle(action)
    return action.seq


@lie("V11.escalation", **READING)
def people_shown_another_reference(story: Story) -> int:
    question = asked_about(story, 1, "aurora", A, B)
    return question.action.seq + 1


@lie("V10.approval", **READING)
def approval_of_another_reference(story: Story) -> int:
    question = asked_about(story, 1, "aurora")
    seq = answered(story, question, B["digest"])
    story.settle(again(story, question))
    return seq


@lie("V10.approval", **READING)
def approval_without_the_reference(story: Story) -> int:
    question = asked_about(story, 1, "aurora")
    seq = answered(story, question, None)
    story.settle(again(story, question))
    return seq


@lie("V12.terms", **READING)
def approved_for_one_reference_and_decided_for_another(story: Story) -> int:
    # Approval substitution: 7712 was approved, 9921 is what the decision says.
    question = asked_about(story, 1, "aurora")
    answered(story, question)
    action = again(story, question, B)
    story.settle(action)
    return action.seq


@lie("V11.outcome", **READING)
def kept_back_by_the_reference_that_was_decided(story: Story) -> int:
    return moved(story, read(story, 1, "aurora"), A)


@lie("V11.outcome", **READING)
def kept_back_without_saying_by_which_reference(story: Story) -> int:
    return moved(story, read(story, 1, "aurora"), None)


@lie("V11.outcome", **READING)
def reference_that_moved_and_was_paid(story: Story) -> int:
    action = read(story, 1, "aurora")
    return story.settle(action, alter=put("reference", value=B))
