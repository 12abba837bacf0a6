"""Events of a contract: an honest one that starts a run, and insiders who let it say something else."""

from __future__ import annotations

from typing import Any

import rlp
from build import b64, digest
from bundle import plain_bundle
from chain import CONTRACT, LOCAL, OTHER, keccak, nodes_of, number, trie_of, word
from fields import payment
from flows import Flow, begin, define, document_of, input_of, job_of, ref, step_of, transfer
from insider_workflows import reference
from lies import lie, put
from scribe import Alter, Story
from story import TRANSFER, opened

SIGNATURE = "Transfer(address indexed from, address indexed to, uint64 value, string memo)"
PAYER, PAYEE = "11" * 20, "22" * 20
INDEX, HEIGHT, AMOUNT = 2, 815, 700
FORWARD = document_of(
    "forward",
    job_of("main", step_of("send", "effect", tool=TRANSFER, undo=None,
                           **{"with": transfer(ref("inputs.amount"), ref("inputs.memo"))})),
    triggers=[{"kind": "chain", "source": "coins", "if": None,
               "with": [["amount", ref("fromJSON(event.value)")], ["memo", ref("event.memo")]]}],
    inputs={"amount": input_of("int"), "memo": input_of("string")},
)  # fmt: skip


def receipt(amount: int) -> bytes:
    topics = [
        keccak(b"Transfer(address,address,uint64,string)"),
        *(bytes(12) + bytes.fromhex(a) for a in (PAYER, PAYEE)),
    ]
    data = word(amount) + word(64) + word(5) + b"INV-3" + bytes(27)
    other = [OTHER, topics, data]
    return b"\x02" + rlp.encode([number(1), number(50_000), bytes(256), [other, [CONTRACT, topics, data]]])


def body_of(amount: int = AMOUNT) -> dict[str, Any]:
    """As the gate records the second log of a transaction."""
    receipts = [b"\x02" + rlp.encode([number(1), number(at), bytes(256), []]) for at in range(4)]
    receipts[INDEX] = receipt(amount)
    trie = trie_of(receipts)
    header = rlp.encode(
        [
            bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 20, bytes([4]) * 32, bytes([5]) * 32, trie.root_hash,
            bytes(256), number(1), number(HEIGHT), number(15_000_000), number(900_000), number(1_793_606_500), b"",
            bytes(32), bytes(8), number(25 * 10**9),
        ]
    )  # fmt: skip
    contract = "0x" + CONTRACT.hex()
    payload = {"from": "0x" + PAYER, "to": "0x" + PAYEE, "value": str(amount), "memo": "INV-3", "contract": contract,
               "block": HEIGHT, "transaction": INDEX}  # fmt: skip
    evidence = {
        "chain_id": LOCAL, "contract": contract, "signature": SIGNATURE, "header": b64(header),
        "receipt": b64(receipts[INDEX]), "proof": nodes_of(trie, rlp.encode(number(INDEX))), "index": INDEX,
        "log_index": 1, "number": HEIGHT,
    }  # fmt: skip
    return {
        "source": "coins", "event": f"{LOCAL}:{keccak(header).hex()}:{INDEX}:1", "key": "0x" + PAYEE,
        "payload": payload, "digest": digest("event", receipts[INDEX]), "scheme": "receipt", "evidence": evidence,
    }  # fmt: skip


def came(story: Story, alter: Alter | None = None, amount: int = AMOUNT) -> Flow:
    define(story, FORWARD)
    body = body_of()
    if alter is not None:
        alter(body)
    seq = story.add("event.received", "gate", [], body)
    trigger = {"kind": "chain", "event": f"coins {body['event']}", "record": seq}
    return begin(story, FORWARD, {"amount": amount, "memo": "INV-3"}, trigger)


def forwarded() -> Story:
    """What came in on a chain is paid on."""
    story = opened("forwarded", bundle=plain_bundle())
    flow = came(story)
    reference(flow, flow.act("main.send", payment(AMOUNT, "aurora", "INV-3")))
    flow.end("success")
    return story


def _seq(story: Story) -> int:
    return len(story.log.leaves) - 2


@lie("V21.event")
def event_of_a_chain_with_another_amount(story: Story) -> int:
    came(story, put("payload", "value", value="90000"), 90_000)
    return _seq(story)


@lie("V21.event")
def event_of_another_contract(story: Story) -> int:
    came(story, put("evidence", "log_index", value=0))
    return _seq(story)


@lie("V21.event")
def event_whose_receipt_is_not_the_proved_one(story: Story) -> int:
    def alter(body: dict[str, Any]) -> None:
        raw = receipt(90_000)
        body["evidence"]["receipt"], body["digest"] = b64(raw), digest("event", raw)
        body["payload"]["value"] = "90000"

    came(story, alter, 90_000)
    return _seq(story)


@lie("V21.trigger")
def event_of_a_chain_by_nothing_but_a_secret(story: Story) -> int:
    def alter(body: dict[str, Any]) -> None:
        body |= {"scheme": "hmac", "evidence": {"at": None}}
        body["payload"]["value"] = "90000"

    came(story, alter, 90_000)
    return _seq(story) + 1
