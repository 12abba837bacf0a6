"""Tenuo: enforce one tool call and keep its signed receipt. Arguments: working directory, mode.

``journal``: the package's ``JournalEmitter`` as shipped: receipts reach the page cache, an fsync runs every 0.5 s.
``fsync``: the same decision and receipt, handed to its ``FileReceiptSink(fsync=True)`` before the call returns.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from pathlib import Path

import loop
from tenuo import Exact, Pattern, Range, SigningKey, Warrant
from tenuo._enforcement import enforce_tool_call
from tenuo.receipts import FileReceiptSink, JournalEmitter
from tenuo_core import Authorizer, ReceiptIssuer

TOOL = "payments.create"


def main(folder: Path, mode: str) -> None:
    root, holder = SigningKey.generate(), SigningKey.generate()
    rules = {"payee": Pattern("acct_*"), "amount": Range.max_value(1_000_000), "currency": Exact("usd")}
    minting = Warrant.mint_builder().capability(TOOL, invoice=Pattern("*"), **rules)
    warrant = minting.holder(holder.public_key).ttl(3600).mint(root)
    bound = warrant.bind(holder, trusted_roots=[root.public_key])
    authorizer = Authorizer(trusted_roots=[root.public_key])
    issuer = ReceiptIssuer(holder)
    issuer.bind_authorizer(authorizer)
    sink = FileReceiptSink(folder / "receipts-fsync.jsonl", fsync=True)
    journal = JournalEmitter(folder / "receipts-journal.hex") if mode == "journal" else None
    if journal is not None:
        journal._attach(issuer, None)

    def unit(number: int) -> None:
        args = {"payee": "acct_1", "amount": 100, "currency": "usd", "invoice": f"inv-{number}"}
        result = enforce_tool_call(TOOL, args, bound, trusted_roots=[root.public_key])
        if not result.allowed:
            raise RuntimeError(f"denied: {result.denial_reason}")
        if journal is not None:
            journal.emit_allow(result.chain_result, TOOL, True, int(time.time()), f"r{number}", None)
            return
        receipt = issuer.issue_receipt(result.chain_result, TOOL, True, int(time.time()), f"r{number}", None)
        if receipt is None:
            raise RuntimeError("no receipt was made")
        sink.handle(receipt)

    loop.serve({mode: loop.rounds(unit)}, {"tenuo": version("tenuo")})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
