"""V20: payments on a chain, proved by the block itself; and what somebody who forges one would have to change.

The records are those of three payments on a real EVM, captured once; what they prove needs no node.
"""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from countermark_verify import evm
from countermark_verify.bodies import SETTLED
from countermark_verify.effects import CONSISTENT, OBSERVED, VERIFIABLE, Effects
from countermark_verify.report import Ledger
from countermark_verify.trust import Chain
from countermark_verify.vouching import Unavailable

CAPTURED = json.loads((Path(__file__).parent / "evm_effects.json").read_text())
CHAIN = 43_112
NATIVE, TOKEN, ALLOWANCE = (1, 3, 5)  # places of the outcomes among the records


def judged(
    records: list[dict[str, Any]], *, blocks: dict[int, bytes] | None = None, tools: Any = None, nodes: Any = None
) -> tuple[list[str], Effects]:
    """The codes that the step finds, and the step."""
    ledger = Ledger()
    state: Any = SimpleNamespace(bundle=SimpleNamespace(tools=tools or CAPTURED["tools"]))
    trust: Any = None
    if blocks is not None:
        chain = Chain(CHAIN, blocks)
        trust = SimpleNamespace(chain=lambda chain_id: chain if chain_id == CHAIN else None)
    effects = Effects(ledger, state, trust, nodes or {})
    for position, record in enumerate(records):
        effects.check(position, record)
    return [finding.code for finding in ledger.steps["V20"].findings], effects


def changed(place: int, **members: Any) -> list[dict[str, Any]]:
    """The records with members of one outcome replaced; ``evidence__index=7`` reaches into the evidence."""
    records = copy.deepcopy(CAPTURED["records"])
    for name, value in members.items():
        outer, _, inner = name.partition("__")
        if inner:
            records[place]["body"][outer][inner] = value
        else:
            records[place]["body"][outer] = value
    return records  # type: ignore[no-any-return]


def evidence(place: int) -> dict[str, Any]:
    return CAPTURED["records"][place]["body"]["evidence"]  # type: ignore[no-any-return]


def blocks() -> dict[int, bytes]:
    return {evidence(at)["block"]["number"]: bytes.fromhex(evidence(at)["block"]["hash"])
            for at in (NATIVE, TOKEN, ALLOWANCE)}  # fmt: skip


def test_v20_three_payments_are_proved_as_far_as_somebody_vouches() -> None:
    """Without the auditor's blocks they are consistent in themselves; with them, verifiable; the weakest one counts."""
    codes, effects = judged(CAPTURED["records"])
    assert (codes, dict(effects.levels)) == ([], {CONSISTENT: 3})
    codes, effects = judged(CAPTURED["records"], blocks=blocks())
    assert (codes, dict(effects.levels)) == ([], {VERIFIABLE: 3})
    some = dict(list(blocks().items())[:1])
    assert dict(judged(CAPTURED["records"], blocks=some)[1].levels) == {VERIFIABLE: 1, CONSISTENT: 2}
    assert all(SETTLED(CAPTURED["records"][at]["body"]) == "" for at in (NATIVE, TOKEN, ALLOWANCE))


def test_v20_an_outcome_without_evidence_is_what_the_gate_saw() -> None:
    """Evidence that is left out lowers the axis; it refutes nothing, because nobody has to have it."""
    records = copy.deepcopy(CAPTURED["records"])
    del records[TOKEN]["body"]["evidence"]
    codes, effects = judged(records, blocks=blocks())
    assert (codes, dict(effects.levels)) == ([], {VERIFIABLE: 2, OBSERVED: 1})


def flipped(text: str, at: int) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[at] ^= 1
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"evidence__header": flipped(evidence(TOKEN)["header"], 40)}, "V20.header"),
        ({"evidence__header": evidence(NATIVE)["header"]}, "V20.header"),
        ({"evidence__block": evidence(NATIVE)["block"]}, "V20.header"),
        ({"evidence__block": {**evidence(TOKEN)["block"], "number": 7_000}}, "V20.header"),
        ({"evidence__chain_id": 43_114}, "V20.chain"),
        ({"evidence__index": 1}, "V20.proof"),
        ({"evidence__receipt": evidence(NATIVE)["receipt"]}, "V20.proof"),
        ({"evidence__transaction": [flipped(evidence(TOKEN)["transaction"][0], 90)]}, "V20.proof"),
        ({"evidence__transaction": []}, "V20.proof"),
        ({"ref": "0x" + "0" * 64}, "V20.transaction"),
        ({"outcome": "failed", "settled": None}, "V20.outcome"),
        ({"settled": {"amount": 2_000_000, "currency": "usdx"}}, "V20.outcome"),
        ({"settled": None}, "V20.outcome"),
        ({"code": "booked_differently"}, "V20.outcome"),
        ({"outcome": "failed", "code": "cancelled"}, "V20.call"),
    ],
)
def test_v20_forged_evidence_is_refuted(members: dict[str, Any], code: str) -> None:
    """Another header, block, chain, place, receipt or outcome than the block shows: found, and named."""
    assert judged(changed(TOKEN, **members), blocks=blocks())[0] == [code]


@pytest.mark.parametrize(
    ("alias", "value"), [("to", "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"), ("amount", "1000001")]
)
def test_v20_a_payment_to_somebody_else_is_no_evidence(alias: str, value: str) -> None:
    """The transaction is held against the decided arguments: receiver and amount to the last unit."""
    records = copy.deepcopy(CAPTURED["records"])
    records[TOKEN - 1]["body"]["args"][alias] = value
    assert judged(records, blocks=blocks())[0] == ["V20.call"]


@pytest.mark.parametrize(
    ("member", "value", "code"),
    [
        ("sender", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "V20.sender"),
        ("contract", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "V20.call"),
        ("selector", "095ea7b3", "V20.call"),
        ("chain_id", 1, "V20.chain"),
        ("gas_max", 50_000, "V20.fee"),
        ("fee_max", 5, "V20.fee"),
    ],
)
def test_v20_a_transaction_outside_the_declaration_is_no_evidence(member: str, value: Any, code: str) -> None:
    """Another account, contract, function or chain, more gas or a higher fee than the bundle says: refuted."""
    tools = copy.deepcopy(CAPTURED["tools"])
    tools["usdx.transfer"]["evm"][member] = value
    assert judged(CAPTURED["records"], blocks=blocks(), tools=tools)[0] == [code]


def test_v20_one_transaction_is_evidence_of_one_outcome() -> None:
    """A second action that shows the first one's payment is found."""
    records = copy.deepcopy(CAPTURED["records"])
    more = copy.deepcopy(records[TOKEN - 1 : TOKEN + 1])
    for record in more:
        record["body"]["id"] = "act_" + "7" * 32
    assert judged([*records, *more], blocks=blocks())[0] == ["V20.twice"]


def test_v20_evidence_of_what_was_to_happen_on_no_chain_is_refuted() -> None:
    """An outcome whose intent was never decided, or is another tool's, has no evidence of a chain."""
    records = [record for at, record in enumerate(CAPTURED["records"]) if at != TOKEN - 1]
    assert judged(records, blocks=blocks())[0] == ["V20.intent"]


def test_v20_a_block_that_the_auditor_knows_otherwise_is_refuted() -> None:
    """The pack's block has the number of another one: pinned, or shown by the auditor's own node."""
    known = {number: bytes(32) for number in blocks()}
    assert judged(CAPTURED["records"], blocks=known)[0] == ["V20.block"] * 3
    node = SimpleNamespace(words="that the node gave", hash_at=lambda number, claimed: bytes(32))
    assert judged(CAPTURED["records"], nodes={CHAIN: node})[0] == ["V20.block"] * 3


def test_v20_a_node_that_is_silent_vouches_for_nothing() -> None:
    """Asked once, then no more; what it would have said stays open, and so does the verdict."""

    def silent(number: int, claimed: bytes) -> bytes:
        raise Unavailable("nobody there")

    codes, effects = judged(CAPTURED["records"], nodes={CHAIN: SimpleNamespace(words="", hash_at=silent)})
    assert (codes, dict(effects.levels)) == (["V20.rpc"], {CONSISTENT: 3})


def test_v20_without_the_hash_function_evidence_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier without the extra says so, and calls nothing proved."""

    def absent(data: bytes) -> bytes:
        raise evm.NoKeccak

    monkeypatch.setattr(evm, "keccak", absent)
    codes, effects = judged(CAPTURED["records"], blocks=blocks())
    assert (codes, dict(effects.levels)) == (["V20.no_evm"], {OBSERVED: 3})
