"""The contact desk in front of tau2's tools: from a call in a path to one governed action, and the desk's policy.

The desk knows the bank's books (who owns a record, a card's account, a state at the start) and whom the contact claims
to be. It unwraps discoverable tools, writes what the books say beside a call, and judges nothing: the rules stand in
``tau2_rules/``. Labels (``violates``, ``gold_violates``, ``why``, ``op``) are never read here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from replay import CasesError

RULES = Path(__file__).with_name("tau2_rules")
WRAPPERS = {
    "call_discoverable_agent_tool": "agent_tool_name",
    "call_discoverable_user_tool": "discoverable_tool_name",
}
OFFERS = {
    "unlock_discoverable_agent_tool": "agent_tool_name",
    "give_discoverable_user_tool": "discoverable_tool_name",
}
EXCEPTIONS = "exceptions.open"
NOBODY, RECOVERY_CODE = "nobody", "9K2X7M4P1N8Q3R5T6A"
TEXT_CHARS_MAX = 1_024
TOOLS_MAX = 256

RECORDS = (
    "account_id", "card_id", "transaction_id", "credit_card_account_id", "checking_account_id", "source_account_id",
    "destination_account_id",
)  # fmt: skip
COLUMNS = (
    "user_id", *RECORDS, *(f"owner_of_{name}" for name in RECORDS), "book_owner", "book_account", "book_status",
    "book_pin_locked", "book_customer", "call_discoverable", "call_number",
)  # fmt: skip

# The tools that a rule names, with those of their own arguments that rules read besides the records.
OWN: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "log_verification", "unlock_discoverable_agent_tool", "give_discoverable_user_tool",
            "apply_checking_account_credit_5829", "submit_interest_discrepancy_report_7294",
            "approve_credit_limit_increase_5847", "deny_credit_limit_increase_5848",
            "log_credit_card_closure_reason_4521", "close_credit_card_account_7834",
            "order_replacement_credit_card_7291", "file_credit_card_transaction_dispute_4829",
            "file_debit_card_transaction_dispute_6281", "update_transaction_rewards_3847", "freeze_debit_card_3892",
            "unfreeze_debit_card_3893", "close_debit_card_4721", "reset_debit_card_pin_6284",
            "change_debit_card_pin_6285", "activate_debit_card_8291", "activate_debit_card_8292",
            "activate_debit_card_8293", "clear_debit_card_fraud_alert_4892",
            "request_temporary_debit_card_limit_increase_8374", "order_debit_card_5739", "close_bank_account_7392",
            "transfer_to_human_agents", "initial_transfer_to_human_agent_1822", "initial_transfer_to_human_agent_0218",
            "emergency_credit_bureau_incident_transfer_1114", "get_all_user_accounts_by_user_id_3847",
            "get_bank_account_transactions_9173", "get_debit_cards_by_account_id_7823", "get_user_dispute_history_7291",
            "get_pending_replacement_orders_5765", "get_closure_reason_history_8293",
            "get_credit_limit_increase_history_4829", "get_payment_history_6183",
        ),
        (),
    ),
    EXCEPTIONS: ("ticket",),
    "get_user_information_by_name": ("customer_name",),
    "change_user_email": ("new_email",),
    "apply_savings_account_credit_6831": ("credit_type",),
    "apply_statement_credit_8472": ("reason",),
    "apply_credit_card_account_flag_6147": ("flag_type",),
    "submit_credit_limit_increase_request_7392": ("requested_increase_amount",),
    "set_debit_card_recurring_block_7382": ("block_recurring",),
    "open_bank_account_4821": ("account_type", "account_class"),
    "transfer_funds_between_bank_accounts_7291": ("amount",),
    "pay_credit_card_from_checking_9182": ("amount",),
}  # fmt: skip

# What touches no customer's record (R1): what is needed to verify, the clock, the shelves, the knowledge base, and
# handing the contact over.
_TOUCHES_NOTHING = re.compile(
    r"log_verification|get_user_information_by_(id|name|email)|get_current_time|list_discoverable_agent_tools"
    r"|KB_search.*|grep|shell|transfer_to_human_agents|initial_transfer_to_human_agent_(1822|0218)"
    r"|emergency_credit_bureau_incident_transfer_1114|(unlock_discoverable_agent|give_discoverable_user)_tool"
)
_READS = re.compile(r"get_.*|list_.*|KB_search.*|grep|shell")
_TOOL = re.compile(r"[a-z0-9][A-Za-z0-9_]{0,79}")
_ALIAS = re.compile(r"[a-z][a-z0-9_]{0,39}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the desk sees it, unwrapped. ``through`` names the tool when a wrapper was used."""

    tool: str
    requestor: str
    through: str
    args: Mapping[str, str]


def text_of(value: Any) -> str:
    """A JSON value as one text; equal numbers have equal texts."""
    if value is None:
        return ""
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) in (int, Decimal):
        return f"{Decimal(value).normalize():f}" if Decimal(value).is_finite() else str(value)
    if type(value) is str:
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def read_call(action: Mapping[str, Any]) -> Call:
    """A call of the path; what a wrapper carries is unpacked, as the tool server does."""
    name, args = action["name"], action.get("arguments") or {}
    if type(name) is not str or not isinstance(args, dict):
        raise CasesError("an action has a name and an object of arguments")
    requestor = "user" if action.get("requestor") == "user" else "assistant"
    through = ""
    if name in WRAPPERS:
        # The agent's wrapper in the customer's hand, or the reverse, is none that R2 speaks of.
        own = (name == "call_discoverable_user_tool") == (requestor == "user")
        inner = str(args.get(WRAPPERS[name]) or name)
        name, args, through = inner, _inner(args.get("arguments")), inner if own else ""
    elif name in OFFERS:
        through = str(args.get(OFFERS[name]) or "")
    return Call(
        _tool_name(name, requestor), requestor, through, {str(key): text_of(value) for key, value in args.items()}
    )


def _tool_name(name: str, requestor: str) -> str:
    """How the gate calls a tool: the customer's own use of it is another tool, and so is a name of another form."""
    plain = name if _TOOL.fullmatch(name) else "x." + re.sub(r"[^A-Za-z0-9_]", "_", name)[:70]
    return f"portal.{plain}" if requestor == "user" else plain


def _inner(text: Any) -> dict[str, Any]:
    """The arguments in a wrapper's text; a text that is no JSON object names nothing, and the tool refuses it."""
    if isinstance(text, dict):
        return text
    try:
        found = json.loads(text, parse_float=Decimal) if type(text) is str and text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class Books:
    """What the bank itself knows in one contact: the claimed customer, and the records with their owners."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        customer, records = facts.get("customer") or {}, facts.get("records") or {}
        if not isinstance(customer, dict) or not all(isinstance(row, dict) for row in records.values()):
            raise CasesError("the facts of a task are a customer and records, each an object")
        self.customer = str(customer.get("user_id") or NOBODY)
        self.name = str(customer.get("name") or "")
        self._records: Mapping[str, Mapping[str, Any]] = records

    @property
    def named(self) -> list[str]:
        """What the contact's mandate names: the customer, by id and by name."""
        return [value for value in (self.customer, self.name) if value]

    def owner(self, record: str) -> str:
        """The user who owns a record; empty when the books do not know the record."""
        found = self._records.get(record)
        if found is None:
            return ""
        return record if found.get("kind") == "user" else str(found.get("user") or "")

    def beside(self, call: Call, number: int) -> dict[str, str]:
        """The columns of a call: the records it names, their owners, and how it was made."""
        args = dict(call.args)
        if call.tool == "close_bank_account_7392":  # a closed account is neither source nor destination any more
            account = args.get("account_id", "")
            args |= {f"{side}_account_id": account for side in ("checking", "source", "destination")}
        named = {name: fit(args.get(name, "")) for name in ("user_id", *RECORDS)}
        owners = {name: self.owner(named[name]) for name in RECORDS}
        card = self._records.get(named["card_id"], {})
        status = card.get("status_at_start")
        verified = named["user_id"] if call.tool == "log_verification" else ""
        return {
            **named, **{f"owner_of_{name}": owner for name, owner in owners.items()},
            "book_owner": next((o for o in owners.values() if o), "") or named["user_id"] or self.customer,
            "book_account": named["account_id"] or str(card.get("account") or ""),
            "book_status": "" if not card else "created" if status is None else str(status),
            "book_pin_locked": text_of(card.get("pin_locked") is True),
            "book_customer": verified or self.customer,
            "call_discoverable": fit(call.through), "call_number": str(number),
        }  # fmt: skip


def fit(text: str) -> str:
    """The text as an argument may be: one line of bounded length."""
    return _CONTROL.sub(" ", text)[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode()


def arguments(call: Call, books: Books, number: int, extras: Iterable[str]) -> dict[str, str]:
    """The arguments of the governed action. ``extras`` are the other arguments that this tool was drafted with."""
    own = {name: fit(call.args.get(name, "")) for name in OWN.get(call.tool, ())}
    rest = {name: fit(call.args[name]) for name in extras if call.args.get(name)}
    fixed = {"call_requestor": call.requestor, "call_touches_records": touches(call.tool)}
    return {**rest, **own, **books.beside(call, number), **fixed}


def touches(tool: str) -> str:
    """Whether a tool reads or changes customer records, as ``tools.toml`` declares it."""
    nothing = (
        tool.startswith("portal.")
        or tool == EXCEPTIONS
        or _TOUCHES_NOTHING.fullmatch(tool.removeprefix("x.")) is not None
    )
    return "no" if nothing else "yes"


def draft(calls: Iterable[Call]) -> dict[str, set[str]]:
    """The tools that the server offers, and their arguments beyond those that rules read."""
    tools: dict[str, set[str]] = {name: set() for name in OWN}
    for call in calls:
        known = {*COLUMNS, *OWN.get(call.tool, ()), "call_requestor", "call_touches_records"}
        extras = tools.setdefault(call.tool, set())
        extras |= {name for name in call.args if name not in known and _ALIAS.fullmatch(name)}
    if len(tools) > TOOLS_MAX:
        raise CasesError(f"more than {TOOLS_MAX} tools")
    return tools


def tools_toml(tools: Mapping[str, Iterable[str]]) -> str:
    """``tools.toml`` for the drafted tools. What no rule reads is sensitive: names, addresses, free text."""
    parts = ['[connector.recorded]\norigin = "https://desk.invalid"\n']
    for name, extras in sorted(tools.items()):
        kind = "read" if _READS.fullmatch(name.removeprefix("portal.").removeprefix("x.")) else "change"
        requestor = "user" if name.startswith("portal.") else "assistant"
        rows = [
            f'[tool."{name}"]\nconnector = "recorded"\nclass = "{kind}"',
            f'encoding = "json-v1"\nendpoint = "POST /{name}"',
            f'[tool."{name}".args]',
            *(f'{arg} = {{ class = "reference", required = true }}' for arg in (*COLUMNS, *OWN.get(name, ()))),
            f'call_requestor = {{ class = "inert", required = true, enum = ["{requestor}"] }}',
            f'call_touches_records = {{ class = "inert", required = true, enum = ["{touches(name)}"] }}',
            *(f'{arg} = {{ class = "inert", sensitive = true }}' for arg in sorted(extras)),
        ]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)
