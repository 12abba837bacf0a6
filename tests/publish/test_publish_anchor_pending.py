"""The file of the pending anchor belongs to the gate's user, not to what is signed: an insider who edits it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anchoring import FEES, Log, settings
from anvil_support import CHAIN_ID, KEYS

from countermark.chain import Signer
from countermark.model.clock import SystemClock
from countermark.model.errors import StoreError
from countermark.publish.anchor import GWEI, ChainAnchor, Pending, PendingFile

CONTRACT = "0x8464135c8F25Da09e49BC8782676a84730C318bC"
OWNER = Signer(KEYS[0])


class Node:
    """Nothing may be asked of it."""

    def check_chain(self) -> None:
        raise AssertionError("the node was asked")


def _pending(log: Log, **changes: Any) -> Pending:
    one = settings(CONTRACT)
    found = Pending(CHAIN_ID, CONTRACT, one.origin, 8, log.root_at(8).hex(), "00" * 32, 1, OWNER.address, 0, 90_000,
                    ((30 * GWEI, GWEI),), 1)  # fmt: skip
    return replace(found, **changes)


def _body(pending: Pending, **changes: Any) -> dict[str, Any]:
    return {
        "size": pending.size, "root": pending.root, "chain_id": CHAIN_ID, "contract": CONTRACT.lower(), "sequence": 1,
        "previous": pending.previous, "tx": "", "receipt": "", "proof": {"index": 0, "receipt": [], "tx": []},
        "header": "", "block": {"number": 1, "hash": ""}, "log_index": 0, **changes,
    }  # fmt: skip


@pytest.mark.parametrize("changes", [
    {"size": 2**50}, {"root": "11" * 32}, {"attempts": ((FEES.fee_max + 1, GWEI),)}, {"gas": 2**40}, {"attempts": ()},
])  # fmt: skip
def test_what_an_insider_writes_there_is_not_signed(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A head that is not this log's would shut the gate for good, and a fee of any height would empty the account."""
    log, file = Log(10), PendingFile(tmp_path / "anchor")
    file.write(_pending(log, **changes))
    to = ChainAnchor(settings(CONTRACT), Node(), lambda: OWNER, log, file, SystemClock())  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="not one of this log, or costs more"):
        to.publish(log.head(10))


@pytest.mark.parametrize("changes", [
    {"size": 7}, {"more": 1}, {"sequence": "1"}, {"tx": None}, {"proof": {}}, {"header": "A" * 40_000},
    {"block": {"number": 1, "hash": 2}}, {"proof": {"index": 0, "receipt": [1], "tx": []}},
])  # fmt: skip
def test_what_an_insider_writes_there_is_no_record(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A record with other members would make every later pack of this log fail; the untouched one is handed over."""
    log, file = Log(10), PendingFile(tmp_path / "anchor")
    to = ChainAnchor(settings(CONTRACT), Node(), lambda: OWNER, log, file, SystemClock())  # type: ignore[arg-type]
    pending = _pending(log)
    file.write(replace(pending, body=_body(pending)))
    assert to.publish(log.head(10)) == ("anchor.published", _body(pending))
    file.write(replace(pending, body=_body(pending, **changes)))
    with pytest.raises(StoreError, match="not one of this log"):
        to.publish(log.head(10))
