"""Two readers of a contract's events: what the product records of a log is what the verifier reads in it."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trie", reason="needs extra: evm")
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.chain import Log
from countermark.workflow.chain_events import ChainSource, _said
from countermark_verify import evm
from countermark_verify.chain_events import _declared, _values, misfit

PACK = Path(__file__).parents[1] / "vectors" / "files" / "honest-workflow-forwarded.zip"
TYPES = ("address", "bool", "uint256", "uint48", "uint56", "int48", "int256", "bytes32", "bytes5", "bytes", "string")
WORD = st.one_of(
    st.binary(min_size=32, max_size=32), st.integers(0, 300).map(lambda n: n.to_bytes(32, "big")),
    st.integers(-300, -1).map(lambda n: n.to_bytes(32, "big", signed=True)),
    st.integers(0, 31).map(lambda n: bytes(n) + b"\x01" + bytes(31 - n)),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(TYPES), st.booleans()), max_size=4),
    st.lists(WORD, max_size=3), st.lists(WORD, max_size=5), st.sampled_from([b"", b"x", b"\xff" * 40, b"y" * 950]),
)  # fmt: skip
def test_both_read_the_same_values(
    kinds: list[tuple[str, bool]], topics: list[bytes], words: list[bytes], tail: bytes
) -> None:
    """Of any log, whether it holds what is declared or not."""
    indexed = [number for number, (_, marked) in enumerate(kinds) if marked][:3]
    names = [f"{kind}{' indexed' if at in indexed else ''} p{at}" for at, (kind, _) in enumerate(kinds)]
    signature = f"E({', '.join(names)})"
    data = b"".join(words) + tail
    source = ChainSource("s", 1, "0x" + "11" * 20, signature, "accepted")
    theirs = _said(source, Log(bytes(20), (bytes(32), *topics), data))
    assert _values(_declared(signature)[1], evm.Log(bytes(20), (bytes(32), *topics), data)) == theirs


def event() -> dict[str, Any]:
    """The body of the event in the attack files' honest pack."""
    with zipfile.ZipFile(PACK) as pack:
        raw = b"".join(pack.read(name) for name in pack.namelist() if "entries" in name)
    at = raw.index(b'{"at":', raw.rindex(b'{"at":', 0, raw.index(b'"event.received"')))
    found, _ = json.JSONDecoder().raw_decode(raw[at:].decode("utf-8", "replace"))
    return dict(found["body"])


Change = Callable[[dict[str, Any]], None]
CHANGES: dict[str, tuple[Change, str]] = {
    "another digest": (lambda body: body.update(digest="sha256:" + "0" * 64), "another receipt"),
    "another block": (lambda body: body.update(event=body["event"].replace(":2:", ":3:")), "not the event"),
    "another number": (lambda body: body["evidence"].update(number=1), "not the event"),
    "another place": (lambda body: body["evidence"].update(index=1), "does not lead from the root"),
    "a log too far": (
        lambda body: (body["evidence"].update(log_index=9), body.update(event=body["event"][:-1] + "9")),
        "does not hold",
    ),
    "another key": (lambda body: body.update(key="0x0"), "its key"),
    "a member more": (lambda body: body["payload"].update(more=1), "its payload"),
    "a signature that is none": (lambda body: body["evidence"].update(signature="E(uint)"), "declares no event"),
    "a name twice": (lambda body: body["evidence"].update(signature="E(bool a, bool a)"), "a name twice"),
    "no proof": (lambda body: body["evidence"].update(proof=[]), "ends before"),
    "no form": (lambda body: body["evidence"].pop("index"), "does not have the form"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_event_is_what_its_evidence_shows(name: str) -> None:
    """The event as it was recorded fits; whatever is changed in it does not."""
    body = event()
    assert misfit(body, {}) == ""
    change, words = CHANGES[name]
    changed = copy.deepcopy(body)
    change(changed)
    assert words in misfit(changed, {})


def test_a_block_that_the_auditor_knows_as_another() -> None:
    """Whoever made the block up is found by an auditor who pinned that number."""
    body = event()
    chain, number = body["evidence"]["chain_id"], body["evidence"]["number"]
    assert misfit(body, {chain: {number + 1: bytes(32)}}) == ""
    assert "auditor knows" in misfit(body, {chain: {number: bytes(32)}})
