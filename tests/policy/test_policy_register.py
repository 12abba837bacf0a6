"""The register of payees against a naive model, and against the verifier's own; names that look alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from soft_passkey import SoftPasskey

from countermark.authority import (
    PayeeOrder,
    generate,
    parse_key,
    parse_payee_order,
    public_of,
    set_payee,
    verify_payee_order,
)
from countermark.authority.people import Person
from countermark.model.canon import canon
from countermark.model.digest import PAYEE
from countermark.model.errors import AuthorityError, CountermarkError
from countermark.model.records import Record
from countermark.policy import Payee, Register, alike
from countermark.policy.alike import near, skeleton
from countermark_verify.register import Register as VerifiersRegister

NAMES = st.sampled_from(["ann", "bob", "cid", "dan"])
ACCOUNTS = st.sampled_from(["", "a1", "a2", "a3", "a4", "bob"])
ORDERS = st.tuples(st.just("order"), NAMES, ACCOUNTS, st.sampled_from(["One", "Two"]), st.sampled_from(["p", "q"]))
POLICIES = st.tuples(st.just("policy"), st.dictionaries(NAMES, st.sampled_from(["a1", "a2", "a3", "a4"]), max_size=3))
PAYMENTS = st.tuples(st.just("paid"), NAMES)
STEPS = st.lists(st.one_of(ORDERS, POLICIES, PAYMENTS, st.just(("restart",))), max_size=30)


def pseudonym(account: str) -> str | None:
    return f"p:{account}" if account else None


class Naive:
    """Everything that ever happened, in lists; each question is answered by reading them again."""

    def __init__(self) -> None:
        self.policies: list[tuple[int, dict[str, str]]] = []
        self.orders: list[tuple[int, str, str, str, str]] = []  # seq, payee, name, account, person

    def payees(self) -> dict[str, tuple[str, str]]:
        found = {name: (name, account) for name, account in (self.policies[-1][1] if self.policies else {}).items()}
        return found | {name: (title, account) for _, name, title, account, _ in self.orders}

    def fits(self, name: str, title: str, account: str) -> bool:
        payees = self.payees()
        taken = any(other[1] == account and key != name for key, other in payees.items()) if account else False
        confused = (account in payees and account != name) or any(
            other[1] == name and key != name for key, other in payees.items()
        )
        same = payees.get(name) == (title, account)
        return not (taken or confused or same or (name not in payees and not account))

    def retired(self) -> set[str]:
        found: set[str] = set()
        for index, (seq, name, _, account, _) in enumerate(self.orders):
            before = Naive()
            before.policies = [row for row in self.policies if row[0] < seq]
            before.orders = self.orders[:index]
            old = before.payees().get(name, ("", ""))[1]
            if old and old != account:
                found.add(f"p:{old}")
            found.discard(f"p:{account}")
        return found


def bundle(payees: dict[str, str]) -> Any:
    rows = {name: Payee(name, name, account) for name, account in payees.items()}
    details = {name: (name, account) for name, account in payees.items()}
    return SimpleNamespace(compiled=SimpleNamespace(payees=rows), details=details)


def record(seq: int, body: dict[str, Any]) -> Record:
    return Record(seq, "payee.changed", seq * 10, "person:p", body, "", {}, b"", f"sha256:{seq:064x}")


class Both:
    """The gate's register and the verifier's, driven with the same steps."""

    def __init__(self) -> None:
        self.mine, self.theirs, self.naive, self.seq = Register(), VerifiersRegister(), Naive(), 0
        self.since: dict[str, int | None] = {}
        self.setter: dict[str, str | None] = {}

    def step(self, step: tuple[Any, ...]) -> None:
        self.seq += 1
        if step[0] == "policy":
            self.policy(step[1])
        elif step[0] == "order":
            self.order(*step[1:])
        elif step[0] == "paid":
            self.mine.paid(step[1], self.seq)
        else:
            fresh = Register()
            fresh.load(self.mine.dump())
            assert fresh.dump() == self.mine.dump()
            self.mine = fresh

    def policy(self, payees: dict[str, str]) -> None:
        if len(set(payees.values())) < len(payees):
            return
        made, before = bundle(payees), self.naive.payees()
        assert bool(self.mine.clash(made)) == bool(self.theirs.clash(made))
        if self.mine.clash(made):
            return
        first = not self.naive.policies
        self.naive.policies.append((self.seq, payees))
        self.mine.activated(made, record(self.seq, {}), first=first)
        self.theirs.activated(made, self.seq * 10, first=first)
        for name, (_, account) in self.naive.payees().items():
            if before.get(name, ("", None))[1] != account:
                self.since[name] = None if first else self.seq * 10
                self.setter[name] = None

    def order(self, name: str, account: str, title: str, person: str) -> None:
        order = PayeeOrder("d", name, title, account, self.mine.previous(name), (), "r", person, 10**9, "0" * 32)
        fits = self.naive.fits(name, title, account)
        previous = order.document()["previous"]
        assert previous == self.theirs.previous(name)
        assert fits == (not self.theirs.misfit(order.document()))
        if not fits:
            with pytest.raises(AuthorityError):
                self.mine.check(order)
            return
        self.mine.check(order)
        old = self.naive.payees().get(name, ("", None))[1]
        body = {"details": order.document(), "was": pseudonym(old or ""), "now": pseudonym(account)}
        made = record(self.seq, body)
        self.mine.changed(made)
        self.theirs.changed(body, self.seq, self.seq * 10, made.digest)
        self.naive.orders.append((self.seq, name, title, account, person))
        if old != account:
            self.since[name], self.setter[name] = self.seq * 10, person

    def compare(self) -> None:
        payees = self.naive.payees()
        assert {name: (one.name, one.account) for name, one in self.mine.known.payees.items()} == payees
        assert self.theirs.payees == payees
        assert dict(self.mine.known.by_account) == {account: name for name, (_, account) in payees.items() if account}
        for account in {account for _, account in payees.values() if account}:
            assert self.theirs.having(account) == {self.mine.known.by_account[account]}
        assert set(self.mine.retired) == set(self.theirs.retired) == self.naive.retired()
        assert self.mine.retired == self.theirs.retired
        assert self.mine.touched == self.theirs.touched
        known = {name: at for name, at in self.since.items() if at is not None and name in payees}
        assert self.mine.since == self.theirs.since == known
        for name in payees:
            assert self.mine.setter(name) == self.setter.get(name) == self.theirs.setters.get(name)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_the_register_is_what_a_naive_reading_of_all_orders_gives(steps: list[tuple[Any, ...]]) -> None:
    """Payees, accounts, retired accounts, ages and setters, after any orders, policies and restarts."""
    both = Both()
    for step in steps:
        both.step(step)
        both.compare()


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_the_register_is_what_a_naive_reading_of_all_orders_gives_at_length(steps: list[tuple[Any, ...]]) -> None:
    """The same in more examples."""
    test_the_register_is_what_a_naive_reading_of_all_orders_gives.hypothesis.inner_test(steps)


def test_payments_count_for_the_account_of_their_decision() -> None:
    """One decided before a change and confirmed after it was paid to the account of before."""
    register = Register()
    register.activated(bundle({"ann": "a1"}), record(1, {}), first=True)
    body = {"details": {"payee": "ann", "name": "ann", "account": "a2", "person": "p"}, "was": "p:a1", "now": "p:a2"}
    register.changed(record(5, body))
    for intent in (2, 4, 7):
        register.paid("ann", intent)
    register.paid("ghost", 7)
    assert [row["count"] for row in register.history("ann")["paid"]] == [2, 1]


ALIKE = [
    ("Acme Paper GmbH", "Аcme Рaper GmbH"),  # Cyrillic
    ("Acme Paper GmbH", "ACME PAPER  G.m.b.H."),
    ("Acme Paper GmbH", "Acrne Paper GmbH"),
    ("Borealis Hosting AB", "Boreaiis Hosting AB"),
    ("Borealis Hosting AB", "Borealis Hostnig AB"),
    ("Müller & Söhne", "Muller & Sohne"),
    ("acct_1BorealisHosting", "acct_1BoreaIisHosting"),
    ("Ｆｕｌｌｗｉｄｔｈ Ltd", "Fullwidth Ltd"),
]
DIFFERENT = [
    ("Acme Paper GmbH", "Acme Steel GmbH"), ("Acme Paper", "Cirrus Cables"), ("BP", "BB"), ("IBM", "ICM"),
    ("acct_1AcmePaper", "acct_1SomebodyElse"), ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_what_looks_the_same_is_alike(one: str, other: str) -> None:
    """Confusable letters, marks, spaces, a slip or two in a long name."""
    assert near(skeleton(one), skeleton(other))
    assert near(skeleton(other), skeleton(one))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_looks_different_is_not_alike(one: str, other: str) -> None:
    """Other words; short names that differ in a letter; nothing is like nothing."""
    assert not near(skeleton(one), skeleton(other))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_breaks_the_comparison(one: str, other: str) -> None:
    """Any two texts compare, the same both ways, and every text that has something to see is like itself."""
    assert near(skeleton(one), skeleton(other)) == near(skeleton(other), skeleton(one))
    assert near(skeleton(one), skeleton(one)) == bool(skeleton(one))


def test_look_alikes_leave_out_oneself_and_the_same_account() -> None:
    """A payee is not its own look-alike, and an account that is equal is another matter."""
    payees = {"ann": Payee("ann", "Ann Ltd Holdings", "acct_1AnnLtd"), "bob": Payee("bob", "Bob", "acct_1Bob")}
    assert alike(payees, name="Ann Ltd Holding", but="ann") == []
    assert [row.because for row in alike(payees, name="Ann Ltd Holding")] == ["name"]
    assert alike(payees, account="acct_1AnnLtd") == []
    assert [row.because for row in alike(payees, account="acct_1AnnLid")] == ["account"]


def document(**changes: Any) -> dict[str, Any]:
    return {
        "v": 1, "deployment": "d", "payee": "ann", "name": "Ann", "account": "acct_1", "previous": None, "alike": [],
        "reason": "r", "person": "p", "not_after": 5, "nonce": "0" * 32, **changes,
    }  # fmt: skip


BAD = {
    "v": 2, "payee": "p:00", "name": "x\ny", "account": "a b", "previous": {"account": "a"}, "alike": ["b", "a"],
    "reason": "", "person": 5, "not_after": -1, "nonce": "0", "deployment": "\x00",
}  # fmt: skip


@pytest.mark.parametrize("member", BAD)
def test_an_order_is_read_strictly(member: str) -> None:
    """Each member has one form, every other is refused; none may be missing, and no other may stand there."""
    assert parse_payee_order(document()).document() == document()
    whole = document()
    del whole[member]
    for wrong in (document(**{member: BAD[member]}), whole, document(more=1)):
        with pytest.raises(AuthorityError) as caught:
            parse_payee_order(wrong)
        assert caught.value.code == "bad_payee"


def test_a_signature_covers_every_member_and_needs_the_role() -> None:
    """Changed by one member, signed by another key, by somebody without the role, for another deployment: refused."""
    private, other = generate(), generate()
    people = {"p": Person("p", "P", frozenset(("payees",)), (public_of(private),))}
    body = set_payee(document(), private)
    assert verify_payee_order(body, deployment="d", people=people).account == "acct_1"
    without = {"p": Person("p", "P", frozenset(("operator",)), (public_of(private),))}
    for signed, deployment, known in (
        ({**body, "details": document(account="acct_2")}, "d", people), (set_payee(document(), other), "d", people),
        (body, "e", people), (body, "d", without), (body, "d", {}),
    ):  # fmt: skip
        with pytest.raises(CountermarkError):
            verify_payee_order(signed, deployment=deployment, people=known)


def test_a_passkey_signs_an_order() -> None:
    """In a page as on the command line: one signed document, whichever key."""
    passkey = SoftPasskey(1)
    people = {"p": Person("p", "P", frozenset(("payees",)), (parse_key(passkey.text),))}
    body = {"details": document(), "key": passkey.text, "sig": passkey.sign(PAYEE, canon(document()))}
    assert verify_payee_order(body, deployment="d", people=people).payee == "ann"
    with pytest.raises(CountermarkError):
        verify_payee_order({**body, "details": document(account="acct_2")}, deployment="d", people=people)
