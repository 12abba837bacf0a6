"""Cases of tau2's shape that nobody has seen: other customers, records and procedures, in other orders, and spoilt.

``unseen(seed, tasks, mutants)`` is a whole document without labels; the seed decides everything.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import tau2_oracle as oracle

CODE = oracle.CODE
Step = tuple[str, dict[str, Any]]
NAMES = ("Ada Okafor", "Jean-Luc Müller", "Ngô Thị Lan", "O'Brien Casey", "Siri Å. Berg", "Zoë Ruiz")


class Desk:
    """One invented customer with records, and the documented procedures over them."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.user = f"u{rng.randrange(16**9):09x}"
        self.name = rng.choice(NAMES)
        self.checking, self.savings, self.other = (self._id("chk"), self._id("sav"), self._id("chk"))
        self.cc, self.txn, self.btxn = self._id("cc"), self._id("txn"), self._id("btxn")
        self.old, self.new, self.cold, self.locked = (self._id("dbc") for _ in range(4))
        self.stranger = f"x{rng.randrange(16**9):09x}"
        self.foreign = self._id("chk")
        account = {"kind": "bank_account", "status_at_start": "OPEN", "user": self.user}
        card = {"kind": "debit_card", "account": self.checking, "user": self.user}
        self.records: dict[str, dict[str, Any]] = {
            self.user: {"kind": "user"}, self.stranger: {"kind": "user"},
            self.checking: account, self.savings: account, self.other: account,
            self.foreign: {**account, "user": self.stranger},
            self.cc: {"kind": "credit_card_account", "status_at_start": "ACTIVE", "user": self.user},
            self.txn: {"kind": "card_transaction", "user": self.user},
            self.btxn: {"kind": "bank_transaction", "account": self.checking, "user": self.user},
            self.old: {**card, "status_at_start": "ACTIVE"}, self.new: {**card, "status_at_start": None},
            self.cold: {**card, "status_at_start": "FROZEN"},
            self.locked: {**card, "status_at_start": "ACTIVE", "pin_locked": True},
        }  # fmt: skip

    def _id(self, kind: str) -> str:
        return f"{kind}_{self.rng.randrange(16**8):08x}"

    def accounts(self) -> Step:
        return "get_all_user_accounts_by_user_id_3847", {"user_id": self.user}

    def transactions(self, account: str) -> Step:
        return "get_bank_account_transactions_9173", {"account_id": account}

    def cards(self) -> Step:
        return "get_debit_cards_by_account_id_7823", {"account_id": self.checking}

    def disputes(self) -> Step:
        return "get_user_dispute_history_7291", {"user_id": self.user}

    def of_card(self, tool: str, **more: Any) -> Step:
        return tool, {"credit_card_account_id": self.cc, **more}

    def pending(self) -> Step:
        return self.of_card("get_pending_replacement_orders_5765")

    def limit(self) -> list[Step]:
        ask = self.of_card("submit_credit_limit_increase_request_7392", user_id=self.user,
                           requested_increase_amount=self.rng.choice([500, 2500, 7500]))  # fmt: skip
        checks = [self.disputes(), self.pending(), self.of_card("get_credit_limit_increase_history_4829"),
                  self.of_card("get_payment_history_6183", months=12)]  # fmt: skip
        self.rng.shuffle(checks)
        if self.rng.random() < 0.4:
            return [ask, *checks, self.of_card("deny_credit_limit_increase_5848", denial_reason="x"), ask]
        return [ask, *checks, self.of_card("approve_credit_limit_increase_5847", new_credit_limit=9000)]

    def closure(self) -> list[Step]:
        checks = [self.disputes(), self.pending(), self.of_card("get_closure_reason_history_8293")]
        self.rng.shuffle(checks)
        end = self.rng.choice(
            [
                self.of_card("close_credit_card_account_7834"),
                self.of_card("apply_statement_credit_8472", amount=50.5, reason="retention_offer"),
                self.of_card("apply_credit_card_account_flag_6147", flag_type="annual_fee_waived"),
            ]
        )
        return [*checks, self.of_card("log_credit_card_closure_reason_4521", closure_reason="fees"), end]

    def interest(self) -> list[Step]:
        credit = {"account_id": self.savings, "credit_type": "interest_correction", "amount": 12.34}
        return [self.accounts(), self.transactions(self.savings), ("apply_savings_account_credit_6831", credit),
                ("submit_interest_discrepancy_report_7294", {"account_id": self.savings})]  # fmt: skip

    def fee(self) -> list[Step]:
        return [self.accounts(), self.transactions(self.checking),
                ("apply_checking_account_credit_5829", {"account_id": self.checking, "amount": 35})]  # fmt: skip

    def lost_card(self) -> list[Step]:
        dispute = {"transaction_id": self.btxn, "account_id": self.checking, "card_id": self.old, "user_id": self.user,
                   "disputed_amount": 99.95, "police_report_filed": False}  # fmt: skip
        return [self.accounts(), self.transactions(self.checking),
                ("file_debit_card_transaction_dispute_6281", dispute),
                ("close_debit_card_4721", {"card_id": self.old, "reason": "lost"}),
                ("order_debit_card_5739", {"account_id": self.checking, "user_id": self.user, "delivery_fee": 0}),
                ("activate_debit_card_8292", {"card_id": self.new})]  # fmt: skip

    def frozen(self) -> list[Step]:
        pair = [
            ("unfreeze_debit_card_3893", {"card_id": self.cold}),
            ("freeze_debit_card_3892", {"card_id": self.cold}),
        ]
        return (pair * self.rng.randint(1, 3))[: self.rng.randint(1, 6)]

    def pin(self) -> list[Step]:
        return [self.cards(), self.transactions(self.checking),
                ("reset_debit_card_pin_6284", {"card_id": self.locked, "last_4_digits": "0042"})]  # fmt: skip

    def more_today(self) -> list[Step]:
        return [
            self.accounts(), self.cards(), self.transactions(self.checking),
            ("request_temporary_debit_card_limit_increase_8374", {"card_id": self.locked, "new_limit": 2000}),
            ("set_debit_card_recurring_block_7382", {"card_id": self.locked, "block_recurring": True}),
            ("set_debit_card_recurring_block_7382", {"card_id": self.locked, "block_recurring": False}),
        ]  # fmt: skip

    def move(self) -> list[Step]:
        sent = {"source_account_id": self.savings, "destination_account_id": self.other}
        return [self.accounts(),
                ("transfer_funds_between_bank_accounts_7291", {**sent, "amount": 100}),
                ("transfer_funds_between_bank_accounts_7291", {**sent, "amount": 100.5}),
                ("pay_credit_card_from_checking_9182", {"user_id": self.user, "checking_account_id": self.checking,
                 "credit_card_account_id": self.cc, "amount": 75.0}),
                ("close_bank_account_7392", {"account_id": self.other})]  # fmt: skip

    def open(self) -> list[Step]:
        lookup = [self.accounts()] * self.rng.randint(0, 1)
        kinds = self.rng.sample(["Blue Account", "Green Account", "Gold Account"], 2)
        return lookup + [
            ("open_bank_account_4821", {"user_id": self.user, "account_type": kind, "account_class": "checking"})
            for kind in kinds
        ]

    def card_dispute(self) -> list[Step]:
        return [self.disputes()] * self.rng.randint(0, 1) + [
            ("file_credit_card_transaction_dispute_4829", {"transaction_id": self.txn, "user_id": self.user}),
            ("update_transaction_rewards_3847", {"transaction_id": self.txn, "points": 3}),
        ]

    def address(self) -> list[Step]:
        return [("get_user_information_by_name", {"customer_name": self.name.upper()}),
                ("change_user_email", {"user_id": self.user, "new_email": "new@mail.invalid"}),
                ("KB_search_bm25", {"query": "fees"}), ("get_referrals_by_user", {"user_id": self.user})]  # fmt: skip


PROCEDURES: tuple[Callable[[Desk], list[Step]], ...] = (
    Desk.limit, Desk.closure, Desk.interest, Desk.fee, Desk.lost_card, Desk.frozen, Desk.pin, Desk.more_today,
    Desk.move, Desk.open, Desk.card_dispute, Desk.address,
)  # fmt: skip
LAST = (
    [], ["transfer_to_human_agents"], ["initial_transfer_to_human_agent_0218"] * 3 + ["transfer_to_human_agents"],
    ["initial_transfer_to_human_agent_1822", "initial_transfer_to_human_agent_0218", "transfer_to_human_agents"],
    ["emergency_credit_bureau_incident_transfer_1114", "transfer_to_human_agents"],
)  # fmt: skip


def action(name: str, args: Mapping[str, Any], wrapped: bool, requestor: str = "assistant") -> dict[str, Any]:
    """One call as it stands in a file; wrapped calls carry their arguments as text."""
    if not wrapped:
        return {"name": name, "requestor": requestor, "arguments": dict(args)}
    word = "agent" if requestor == "assistant" else "user"
    inner = {"agent_tool_name" if word == "agent" else "discoverable_tool_name": name}
    if args:
        inner["arguments"] = json.dumps(args)
    return {"name": f"call_discoverable_{word}_tool", "requestor": requestor, "arguments": inner}


def _gold(desk: Desk) -> list[dict[str, Any]]:
    rng, actions, offered = desk.rng, [], set()
    who = CODE if rng.random() < 0.2 else desk.user
    steps = [step for make in rng.sample(PROCEDURES, rng.randint(1, 4)) for step in make(desk)]
    steps += [(name, {}) for name in rng.choice(LAST)]
    actions.append(action("log_verification", {"name": desk.name, "user_id": who, "address": "1 Elm"}, False))
    for name, args in steps:
        wrapped = name[-4:].isdigit() and rng.random() < 0.97
        if wrapped and name not in offered:
            offered.add(name)
            actions.append(action("unlock_discoverable_agent_tool", {"agent_tool_name": name}, False))
        actions.append(action(name, args, wrapped))
    if rng.random() < 0.3:
        give = {"discoverable_tool_name": "deposit_check_3847"}
        actions.append(action("give_discoverable_user_tool", give, False))
        actions.append(action("deposit_check_3847", {"account_id": desk.foreign}, True, "user"))
    return actions


def _spoil(desk: Desk, path: dict[str, Any]) -> None:
    """One change to a path, of any kind; many break a rule and some do not."""
    rng, actions, ok = desk.rng, path["actions"], path["ok"]
    at, to = rng.randrange(len(actions)), rng.randrange(len(actions))
    kinds = ["drop", "move", "move", "again", "foreign", "snoop", "failed", "user", "early", "incident", "intruder"]
    kind = rng.choice([*kinds, "intruder", "same key"])
    if kind in ("intruder", "same key"):
        _insert(desk, path, kind)
    elif kind == "drop" and len(actions) > 1:
        del actions[at], ok[at]
    elif kind == "move":
        actions.insert(to, actions.pop(at))
        ok.insert(to, ok.pop(at))
    elif kind == "again":
        actions.insert(max(at, to), copy.deepcopy(actions[at]))
        ok.insert(max(at, to), True)
    elif kind == "foreign":
        text = json.dumps(actions[at])
        for mine, other in ((desk.checking, desk.foreign), (desk.user, desk.stranger), (desk.savings, "unheard_of")):
            text = text.replace(mine, other) if rng.random() < 0.6 else text
        actions[at] = json.loads(text)
    elif kind == "snoop":
        actions.insert(to, action("get_user_information_by_name", {"customer_name": "Somebody Else"}, False))
        ok.insert(to, rng.random() < 0.5)
    elif kind == "failed":
        ok[at] = False
    elif kind == "user":
        actions[at]["requestor"] = "assistant" if actions[at]["requestor"] == "user" else actions[at]["requestor"]
    elif kind == "early":
        actions.insert(0, actions.pop(at))
        ok.insert(0, ok.pop(at))
    else:
        actions.insert(to, action("initial_transfer_to_human_agent_0218", {}, False))
        ok.insert(to, rng.random() < 0.5)


def _insert(desk: Desk, path: dict[str, Any], kind: str) -> None:
    """A write of any tool on any record, mine or another's; or one of the path's writes again, with other arguments."""
    rng, actions, ok = desk.rng, path["actions"], path["ok"]
    at = rng.randrange(len(actions) + 1)
    name = rng.choice(sorted(oracle.KEYS))
    words = {"amount": 5, "requested_increase_amount": 500, "block_recurring": True, "new_email": "a@b.invalid"}
    texts = {"reason": "retention_offer", "flag_type": "annual_fee_waived", "credit_type": "interest_correction",
             "account_type": "checking", "account_class": "Blue Account", "user_id": desk.user, **words}  # fmt: skip
    owned = {"account_id": "bank_account", "card_id": "debit_card", "transaction_id": "transaction"}
    args = {"user_id": desk.user} if "dispute" in name else {}
    for part in oracle.KEYS[name]:
        kind_of = owned.get(part) or ("credit_card_account" if part.startswith("credit") else "bank_account")
        known = [key for key, row in desk.records.items() if row["kind"].endswith(kind_of)]
        args[part] = texts.get(part) or rng.choice(known)
    if kind == "same key":
        mine = [a for a in actions if a["name"] == "call_discoverable_agent_tool" and a["arguments"].get("arguments")]
        if not mine:
            return
        name = (again := rng.choice(mine))["arguments"]["agent_tool_name"]
        args = {**json.loads(again["arguments"]["arguments"]), "note": "once more"}
    new = [action("unlock_discoverable_agent_tool", {"agent_tool_name": name}, False)] * rng.randint(0, 1)
    new.append(action(name, args, name[-4:].isdigit()))
    actions[at:at] = new
    ok[at:at] = [rng.random() < 0.9 for _ in new]


def unseen(seed: int, tasks: int, mutants: int) -> dict[str, Any]:
    """``tasks`` reference paths that break nothing by the oracle, and ``mutants`` spoilt ones of each."""
    rng = Random(seed)
    found: dict[str, Any] = {}
    spoilt = []
    while len(found) < tasks:
        desk = Desk(rng)
        actions = _gold(desk)
        facts = {"customer": {"name": desk.name, "user_id": desk.user}, "records": desk.records}
        task = {"actions": actions, "ok": [True] * len(actions), "facts": facts}
        task["results"] = [None] * len(actions)
        if oracle.violations(task, task):
            continue
        name = f"unseen_{len(found)}"
        found[name] = task
        for _ in range(mutants):
            path = copy.deepcopy({"actions": actions, "ok": task["ok"]})
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                _spoil(desk, path)
            spoilt.append({"task": name, **path})
    return {"source": "invented", "tasks": found, "mutants": spoilt}
