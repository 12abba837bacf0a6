"""Payments on a chain whose evidence is none (V20): forged by somebody who can make up a whole block, but not the one
that the auditor has from a node of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rlp
from build import b64, head_of
from bundle import plain_bundle, rules
from cases import Case, case, trust
from chain import LOCAL, OTHER, OWNER, STRANGER, Block, keccak, number, word
from scribe import Action, Alter, Story
from story import ALLOWED, opened, pack_of, run_of

COINS, TOKENS = "bank.coins.send", "bank.tokens.send"
TRANSFER = "transfer(address,uint256)"
TOKEN = OTHER
UNIT = 100
AURORA, BOREALIS = (bytes.fromhex(one * 20) for one in ("1a", "2b"))


def _shown(address: bytes) -> str:
    return "0x" + address.hex()


def _tool(name: str, base: dict[str, Any], **evm: Any) -> dict[str, Any]:
    args = [dict(arg) for arg in base["args"]]
    for arg in args:
        if arg["class"] == "amount":
            arg |= {"type": "string", "minimum": None, "maximum": None, "unit": str(UNIT)}
    call = {
        "chain_id": LOCAL, "sender": OWNER.address, "contract": "", "to": "", "function": "", "selector": "",
        "inputs": [], "value": "", "gas_max": 100_000, "fee_max": 60 * 10**9, "shows": "",
    } | evm  # fmt: skip
    return base | {
        "name": name, "connector": "evm", "args": args, "encoding": "evm-v1", "headers": [], "evm": call,
        "endpoint": f"POST evm://{LOCAL}/{OWNER.address}",
    }  # fmt: skip


def chain_bundle(**evm: Any) -> dict[str, Any]:
    """A tool for the coin and one for a token; `evm` declares the coin's otherwise."""
    bundle = plain_bundle("on a chain")
    compiled = bundle["compiled"]
    [base] = compiled["tools"]
    token = {
        "contract": _shown(TOKEN), "function": TRANSFER, "selector": keccak(TRANSFER.encode())[:4].hex(),
        "inputs": ["destination", "amount"], "shows": "transfer",
    }  # fmt: skip
    for row, address in zip(compiled["payees"], (AURORA, BOREALIS), strict=True):
        row["account"] = _shown(address)
    tools = [
        _tool(COINS, base, **({"to": "destination", "value": "amount"} | evm)),
        _tool(TOKENS, base, **token),
    ]
    compiled |= rules(tools, compiled["cedar"], [], {}, {}, [row["id"] for row in compiled["payees"]])
    return bundle


@dataclass
class Payment(Block):
    """A block with a payment in it: what the transaction does, and what the receipt says of it."""

    chain_id: int = LOCAL
    avalanche: bool = False
    to: bytes = AURORA
    value: int = 10_000
    call: bytes = b""
    moved: int | None = None  # what the token's event says
    event: str = "Transfer(address,address,uint256)"
    address: bytes = TOKEN
    fee: int = 50 * 10**9

    def transaction(self, one: dict[str, Any]) -> bytes:
        fields = {
            "type": 2, "chainId": self.tx_chain_id or self.chain_id, "nonce": self.height, "to": self.to,
            "value": self.value, "data": self.call, "gas": 90_000, "maxFeePerGas": self.fee,
            "maxPriorityFeePerGas": 10**9,
        }  # fmt: skip
        return bytes(self.account.sign_transaction(fields).raw_transaction)

    def receipt(self, one: dict[str, Any]) -> bytes:
        topics = [keccak(self.event.encode()), bytes(12) + bytes.fromhex(OWNER.address[2:]), bytes(12) + AURORA]
        logs = [] if self.moved is None else [[self.address, topics, word(self.moved)]]
        return b"\x02" + rlp.encode([number(self.status), number(50_000), bytes(256), logs])

    def evidence(self) -> tuple[str, dict[str, Any]]:
        """The transaction's hash and the evidence."""
        one = self.sealed({})
        return "0x" + keccak(self.transaction({})).hex(), {
            "chain_id": self.chain_id, "block": one["block"], "header": one["header"], "index": self.index,
            "transaction": one["proof"]["tx"], "receipt": one["proof"]["receipt"],
        }  # fmt: skip


def of_tokens(units: int = 10_000, **more: Any) -> Payment:
    """A transfer of the token, and the event that says so."""
    call = keccak(TRANSFER.encode())[:4] + bytes(12) + AURORA + word(units)
    return Payment(to=TOKEN, value=0, call=call, **({"moved": units} | more))


def on_chain(label: str, **evm: Any) -> Story:
    return opened(label, bundle=chain_bundle(**evm), limits=[[1_000_000, None]], named=[])


def pay(story: Story, count: int, tool: str = COINS, units: int = 10_000) -> Action:
    args = {"amount": str(units), "currency": "EUR", "destination": _shown(AURORA), "invoice": f"INV-{count}"}

    def counted(body: dict[str, Any]) -> None:
        body["terms"]["amount"] = -(-units // UNIT)

    return story.decide(run_of(story), f"call-{count}", tool, args, ALLOWED, derive=counted)


def shown(payment: Payment, alter: Alter | None = None) -> Alter:
    """The outcome's members that the chain gives."""
    name, evidence = payment.evidence()

    def change(body: dict[str, Any]) -> None:
        body |= {"ref": name, "evidence": evidence, "http_status": 0, "request_id": "", "response": ""}
        if alter is not None:
            alter(body)

    return change


def paid(story: Story, payment: Payment, tool: str = COINS, alter: Alter | None = None, **more: Any) -> int:
    return story.settle(pay(story, len(story.actions), tool), alter=shown(payment, alter), **more)


def judged(story: Story, verdict: str, codes: list[str], seq: int | None = None, known: bool = True) -> Case:
    """Before an auditor who has the blocks, or other ones of these numbers."""
    blocks = {}
    for record in story.log.records:
        if (found := record["body"].get("evidence")) is not None:
            blocks[found["block"]["number"]] = found["block"]["hash"] if known else "cd" * 32
    pinned = [{"number": height, "hash": name} for height, name in sorted(blocks.items())]
    chains = [{"chain_id": LOCAL, "blocks": pinned}]
    return Case(pack_of(story).write(), verdict, codes, seq, trust([head_of(story.log.leaves)], chains=chains))


def chained() -> Story:
    """Coins, a token, less of a token than was asked, a revert, and a payment that a person gave up."""
    story = on_chain("paid-on-a-chain")
    paid(story, Payment())
    paid(story, of_tokens(height=4_712), TOKENS)
    paid(story, Payment(height=4_713, status=0), alter=_failed("provider_refused"), outcome="failed")
    own = bytes.fromhex(OWNER.address[2:])
    paid(story, Payment(height=4_714, to=own, value=0), alter=_failed("cancelled"), outcome="failed")
    story.wait(5)
    paid(story, of_tokens(height=4_715, moved=9_899), TOKENS, alter=_booked, amount=99)
    return story


@case
def honest_paid_on_a_chain() -> Case:
    return judged(chained(), "verified", [])


@case
def paid_in_a_block_that_nobody_pinned() -> Case:
    """Self-consistent to a block that anybody can make up: the axis says so, and nothing is refuted."""
    story = on_chain("paid-in-no-block")
    paid(story, Payment())
    return Case(pack_of(story).write(), "verified", [], None, trust([head_of(story.log.leaves)]))


@case
def paid_in_another_block_than_the_auditors() -> Case:
    story = on_chain("paid-in-another-block")
    seq = paid(story, Payment())
    return judged(story, "refuted", ["V20.block"], seq, known=False)


def _failed(code: str) -> Alter:
    def change(body: dict[str, Any]) -> None:
        body |= {"code": code}

    return change


def _booked(body: dict[str, Any]) -> None:
    body["code"] = "booked_differently"


def _part(member: str, value: Any) -> Alter:
    def change(body: dict[str, Any]) -> None:
        body["evidence"][member] = value(body["evidence"][member]) if callable(value) else value

    return change


def _twice(story: Story) -> int:
    paid(story, Payment())
    return paid(story, Payment())


def forged(code: str, name: str, make: Callable[[Story], int], **evm: Any) -> None:
    """One false payment, refuted at its seq."""

    def build() -> Case:
        story = on_chain(name, **evm)
        return judged(story, "refuted", [code], make(story))

    build.__name__ = name
    case(build)


for _code, _name, _make in (
    ("V20.call", "chain_payment_to_somebody_else", lambda s: paid(s, Payment(to=BOREALIS))),
    ("V20.call", "chain_payment_of_one_unit_less", lambda s: paid(s, Payment(value=9_999))),
    ("V20.call", "chain_payment_with_data", lambda s: paid(s, Payment(call=b"\1"))),
    ("V20.sender", "chain_payment_by_another_account", lambda s: paid(s, Payment(account=STRANGER))),
    ("V20.chain", "chain_payment_for_another_chain", lambda s: paid(s, Payment(tx_chain_id=1))),
    ("V20.chain", "chain_payment_on_another_chain", lambda s: paid(s, Payment(), alter=_part("chain_id", 1))),
    ("V20.fee", "chain_payment_above_the_highest_fee", lambda s: paid(s, Payment(fee=60 * 10**9 + 1))),
    ("V20.outcome", "chain_payment_reverted_and_called_confirmed", lambda s: paid(s, Payment(status=0))),
    ("V20.outcome", "chain_payment_confirmed_and_called_failed",
     lambda s: paid(s, Payment(), alter=_failed("provider_refused"), outcome="failed")),
    ("V20.call", "chain_payment_called_cancelled",
     lambda s: paid(s, Payment(), alter=_failed("cancelled"), outcome="failed")),
    ("V20.twice", "chain_payment_shown_twice", _twice),
    ("V20.proof", "chain_payment_of_another_place", lambda s: paid(s, Payment(), alter=_part("index", 2))),
    ("V20.proof", "chain_payment_with_a_cut_proof",
     lambda s: paid(s, Payment(), alter=_part("receipt", lambda nodes: nodes[:-1]))),
    ("V20.header", "chain_payment_in_a_block_of_another_number",
     lambda s: paid(s, Payment(), alter=_part("block", lambda one: one | {"number": 1}))),
    ("V20.header", "chain_payment_under_a_header_that_is_none",
     lambda s: paid(s, Payment(), alter=_part("header", b64(b"\xc0")))),
    ("V20.transaction", "chain_payment_under_another_name",
     lambda s: paid(s, Payment(), alter=lambda body: body.update(ref="0x" + "0" * 64))),
    ("V20.outcome", "tokens_that_the_event_does_not_show", lambda s: paid(s, of_tokens(moved=None), TOKENS)),
    ("V20.outcome", "tokens_of_another_contract", lambda s: paid(s, of_tokens(address=AURORA), TOKENS)),
    ("V20.outcome", "tokens_less_than_asked_under_an_ordinary_code",
     lambda s: paid(s, of_tokens(moved=9_950), TOKENS)),
    ("V20.call", "tokens_more_than_asked", lambda s: paid(s, of_tokens(20_000), TOKENS)),
):  # fmt: skip
    forged(_code, _name, _make)

forged("V20.call", "chain_tool_with_the_selector_of_another_function", lambda s: paid(
    s, Payment(to=TOKEN, value=0, call=bytes.fromhex("deadbeef") + word(10_000))), contract=_shown(TOKEN), to="",
    value="", function="mint(uint256)", selector="deadbeef", inputs=["amount"])  # fmt: skip
