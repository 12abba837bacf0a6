"""agent-bouncer: authorize one spend. Arguments: working directory, mode.

``authorize``: the decision and its audit row. ``redeem``: also the single use of the mandate that it minted, which is
its nearest thing to recording that the effect was taken. ``history``: ``authorize`` with earlier rows in the window.
Every round begins with a fresh database (and with its history, if any), since each decision reads the whole window.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import loop
from bouncer.client import Client
from bouncer.mandate import verify_mandate

HISTORY_ROWS = 1_000
POLICY = """version: 1
currency: USD
agents:
  payer:
    per_transaction_cap: 1000000.00
    rolling_windows:
      - amount: 1000000000.00
        window: 24h
    merchants:
      allow: ["acct-*"]
    approval_required_above:
      amount: 999999.00
      approver_role: cfo
"""


def client_of(folder: Path, rows: int) -> Client:
    home = Path(tempfile.mkdtemp(prefix="bouncer-", dir=folder))
    client = Client.from_policy(POLICY, agent_id="payer", state_dir=home)
    if rows:
        audit = client.enforcer.audit
        laying = audit.engine.raw_connection()
        laying.cursor().execute("PRAGMA synchronous=OFF")  # only while the history is laid
        laying.close()  # back to the pool, so that the next session gets this same connection
        with client.spend(merchant="acct-1", amount="1.00", description="old-0") as first:
            pass
        for _ in range(rows - 1):
            audit.append(first.intent, first.decision)
        audit.engine.dispose()  # drops that connection; new ones are FULL again
    return client


def main(folder: Path, mode: str) -> None:
    def measure(ask: dict[str, Any]) -> dict[str, Any]:
        client = client_of(folder, HISTORY_ROWS if mode == "history" else 0)
        enforcer = client.enforcer

        def unit(number: int) -> None:
            with client.spend(merchant="acct-1", amount="1.00", description=f"inv-{number}") as allowed:
                if mode == "redeem":
                    verify_mandate(
                        allowed.mandate, enforcer.key.verify_key, now=datetime.now(UTC), nonce_store=enforcer.nonces,
                        expected_merchant="acct-1", amount=allowed.amount, expected_agent_id="payer",
                    )  # fmt: skip

        answer = loop.rounds(unit)(ask)
        answer["synchronous"] = _synchronous(client)
        enforcer.audit.engine.dispose()
        return answer

    loop.serve({mode: measure}, {"agent-bouncer": version("agent-bouncer")})


def _synchronous(client: Client) -> int:
    with client.enforcer.audit.engine.connect() as db:
        return int(db.exec_driver_sql("PRAGMA synchronous").scalar_one())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
