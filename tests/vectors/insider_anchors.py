"""Anchors that are none (V17): forged by somebody who holds every key of the deployment and can make up a whole block.

An auditor pinned the block of the honest anchor and knows the contract and its owner.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from build import b64, head_of, root_of
from cases import Case, case, trust
from chain import LOCAL, OTHER, STRANGER, Block, anchor, chain_trust, keccak
from scribe import Story
from story import opened, pack_of, pay, small


def anchored(block: Block | None = None, **more: Any) -> Story:
    """A payment, two anchors, a payment between them."""
    story = small("anchored")
    size = len(story.log.leaves)
    anchor(story, block)
    story.settle(pay(story, 2001))
    anchor(story, Block(height=5_000, index=0, entries=1), sequence=2, previous=root_of(story.log.leaves[:size]))
    return story


def bodies(story: Story) -> list[dict[str, Any]]:
    return [record["body"] for record in story.log.records if record["kind"] == "anchor.published"]


def judged(
    story: Story, verdict: str, codes: list[str], seq: int | None = None, chains: list[dict[str, Any]] | None = None
) -> Case:
    given = {} if chains is None else {"chains": chains}
    return Case(pack_of(story).write(), verdict, codes, seq, trust([head_of(story.log.leaves)], **given))


@case
def honest_anchored() -> Case:
    story = anchored()
    return judged(story, "verified", [], chains=chain_trust(*bodies(story)))


@case
def honest_anchored_on_a_local_chain() -> Case:
    """Headers as Ethereum's, which a local network may have."""
    story = opened("anchored-local")
    story.settle(pay(story, 1))
    anchor(story, Block(chain_id=LOCAL, avalanche=False))
    return judged(story, "verified", [], chains=chain_trust(*bodies(story)))


@case
def honest_anchored_and_nobody_asks() -> Case:
    """Without chains in the trust file anchors are checked for themselves and raise no level."""
    return judged(anchored(), "verified", [])


@case
def anchored_in_a_block_that_nobody_pinned() -> Case:
    """Self-consistent to a block hash, which anybody can make up: not anchored."""
    story = anchored()
    other = bodies(story)[0] | {"block": {"number": 1, "hash": "ab" * 32}}
    return judged(story, "incomplete", ["V17.unpinned"], chains=chain_trust(other))


def forged(code: str, name: str, make: Callable[[Story], int]) -> None:
    """One false anchor in an honest log, refuted at its seq."""

    def build() -> Case:
        story = opened(name)
        story.settle(pay(story, 1))
        seq = make(story)
        honest = opened(name + " honest")
        anchor(honest)
        return judged(story, "refuted", [code], seq, chain_trust(bodies(honest)[0] | {"block": PINNED}))

    build.__name__ = name
    case(build)


PINNED = {"number": 9_999, "hash": "cd" * 32}


def put(member: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def alter(body: dict[str, Any]) -> None:
        body[member] = value(body[member]) if callable(value) else value

    return alter


def _flip(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[40] ^= 1
    return b64(bytes(raw))


def _other_index(body: dict[str, Any]) -> None:
    body["proof"]["index"] += 1


def _cut_proof(body: dict[str, Any]) -> None:
    body["proof"]["receipt"].pop()


def _foreign_receipt(body: dict[str, Any]) -> None:
    """The proof of this receipt, and another one shown."""
    body["receipt"] = b64(Block().receipt({**body, "size": body["size"] - 1}))


def _lines(number: int, value: bytes) -> Callable[[list[Any]], None]:
    def change(fields: list[Any]) -> None:
        fields[number] = value

    return change


for _code, _name, _make in (
    ("V17.header", "anchor_header_does_not_hash", lambda s: anchor(s, alter=put("header", _flip))),
    ("V17.header", "anchor_header_is_ethereums_on_avalanche", lambda s: anchor(s, Block(avalanche=False))),
    ("V17.header", "anchor_header_with_a_short_root", lambda s: anchor(s, Block(header=_lines(3, b"\4" * 31)))),
    ("V17.header", "anchor_header_with_a_long_number", lambda s: anchor(s, Block(header=_lines(9, b"\0\1")))),
    ("V17.header", "anchor_header_too_long", lambda s: anchor(s, Block(header=lambda f: f.extend([b""] * 3)))),
    (
        "V17.header", "anchor_block_of_another_number",
        lambda s: anchor(s, alter=lambda body: body["block"].update(number=4_712)),
    ),
    ("V17.proof", "anchor_proof_of_another_index", lambda s: anchor(s, alter=_other_index)),
    ("V17.proof", "anchor_proof_cut", lambda s: anchor(s, alter=_cut_proof)),
    ("V17.proof", "anchor_receipt_is_not_the_proved_one", lambda s: anchor(s, alter=_foreign_receipt)),
    ("V17.proof", "anchor_receipt_of_another_root", lambda s: anchor(s, Block(header=_lines(5, bytes(32))))),
    ("V17.proof", "anchor_transaction_of_another_root", lambda s: anchor(s, Block(header=_lines(4, bytes(32))))),
    ("V17.receipt", "anchor_of_a_failed_transaction", lambda s: anchor(s, Block(status=0))),
    ("V17.event", "anchor_by_another_event", lambda s: anchor(s, Block(event="Transfer(address,address,uint256)"))),
    ("V17.event", "anchor_of_another_log", lambda s: anchor(s, Block(origin="countermark/acme/l1"))),
    ("V17.event", "anchor_by_another_contracts_event", lambda s: anchor(s, Block(address=OTHER))),
    ("V17.event", "anchor_by_an_event_that_is_not_there", lambda s: anchor(s, alter=put("log_index", 1))),
    ("V17.event", "anchor_says_another_sequence", lambda s: anchor(s, alter=put("sequence", 2))),
    ("V17.contract", "anchor_in_another_contract", lambda s: anchor(s, Block(to=OTHER, address=OTHER))),
    ("V17.chain", "anchor_from_another_chain", lambda s: anchor(s, Block(tx_chain_id=43_113))),
    ("V17.owner", "anchor_by_somebody_else", lambda s: anchor(s, Block(account=STRANGER))),
    ("V17.block", "anchor_in_a_block_made_up", lambda s: anchor(s, Block(height=PINNED["number"]))),
    ("V17.root", "anchor_of_another_root", lambda s: anchor(s, root=keccak(b"another log"))),
    ("V17.size", "anchor_of_a_size_that_does_not_exist", lambda s: anchor(s, size=9_000, root=keccak(b"more"))),
    ("V17.sequence", "anchor_after_another_root", lambda s: anchor(s, previous=keccak(b"a fork"))),
    ("V04.record", "anchor_with_a_name_for_a_number", lambda s: anchor(s, alter=put("chain_id", "43114"))),
    ("V04.record", "anchor_too_long", lambda s: anchor(s, alter=put("tx", "AAAA" * 9_000))),
):  # fmt: skip
    forged(_code, _name, _make)


@case
def anchor_twice() -> Case:
    """The same anchor recorded again, and an older head after a newer one."""
    story = opened("anchor twice")
    anchor(story)
    seq = anchor(story, size=1)
    return judged(story, "refuted", ["V17.sequence"], seq)


@case
def anchors_missing_in_between() -> Case:
    """The contract took three, the log shows the first and the third: what the second said cannot be told."""
    story = small("anchor gap")
    anchor(story)
    anchor(story, Block(height=5_000), sequence=3, previous=keccak(b"whatever the second said"))
    return judged(story, "incomplete", ["V17.gap"], chains=chain_trust(*bodies(story)))
