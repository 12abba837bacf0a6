"""A process that is traced: opens ROOT, pays once with a provider whose first byte goes to a real socket, closes."""

from __future__ import annotations

import sys
from pathlib import Path

import countermark

if __name__ == "__main__":
    with countermark.open(Path(sys.argv[1]), agent="treasury") as handle:
        run = handle.start_run()
        args = {
            "amount": 1000, "currency": "eur", "destination": "acct_1AcmePaper", "metadata[invoice]": "INV-traced",
        }  # fmt: skip
        print(handle.act("stripe.transfers.create", args, run=run, call_id="traced", reason="sealed").status)
