"""docs/evm.md from nothing to a governed payment on a local chain; and the pack of it before a stranger."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from anvil_support import anvil, needs_anvil
from evm_stage import SUPPLIER, coins, sent, settled
from support import records

from countermark_verify import parse_trust, verify

pytestmark = [pytest.mark.slow, needs_anvil]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "evm.md"
COMMAND_S_MAX = 120


def trust_of(root: Path, pack: Path, blocks: list[dict[str, Any]]) -> bytes:
    """What an auditor would have: the log's key, people's keys, the head that was told, blocks of a node of theirs."""
    from countermark.authority import load_private, public_of
    from countermark_verify.container import open_pack
    from countermark_verify.notes import parse_checkpoint

    started = next(record.body for record in records(root) if record.kind == "gate.started")
    head = parse_checkpoint(bytes(open_pack(pack)["log/checkpoint"]))
    people = {path.stem: str(public_of(load_private(path))) for path in (root / "people").glob("*.pem")}
    import base64

    return json.dumps({
        "v": 1, "log": {"origin": head.origin, "keys": [started["log_key"]]}, "people": people,
        "heads": [{"size": head.size, "root": base64.b64encode(head.root).decode(), "source": "told"}],
        "chains": [{"chain_id": 43_112, "blocks": blocks}],
    }).encode()  # fmt: skip


def test_the_page_leads_to_a_payment_that_a_stranger_can_check(tmp_path: Path) -> None:
    """Every block of the page runs; the chain shows one payment; the pack is verified, and its effect verifiable."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    with anvil() as node:
        script = "set -e\n" + "\n".join(blocks).replace(
            "--template chain-payments\n",
            f"--template chain-payments\nsed -i s#http://127.0.0.1:8545#{node.url}# DEPLOYMENT/countermark.toml\n",
        )
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment.pop("COUNTERMARK_DIR", None)
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True,
                              timeout=COMMAND_S_MAX)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert coins(node, SUPPLIER) == 10_000 * 10**18 + 15 * 10**17
        assert sent(node) == 1
    root = tmp_path / "DEPLOYMENT"
    assert [(body["outcome"], body["code"]) for body in settled(root)] == [("confirmed", "ok")]
    block = settled(root)[0]["evidence"]["block"]
    pinned = verify(tmp_path / "pack.zip", parse_trust(trust_of(root, tmp_path / "pack.zip", [block])))
    assert (pinned.verdict, pinned.codes()) == ("verified", [])
    assert pinned.axes["effect"]["level"] == "counterparty verifiable"
    alone = verify(tmp_path / "pack.zip", parse_trust(trust_of(root, tmp_path / "pack.zip", [])))
    assert (alone.verdict, alone.axes["effect"]["level"]) == ("verified", "self-consistent")
    forged = {**block, "hash": "0" * 64}
    other = verify(tmp_path / "pack.zip", parse_trust(trust_of(root, tmp_path / "pack.zip", [forged])))
    assert (other.verdict, other.codes(), other.axes["effect"]["level"]) == ("refuted", ["V20.block"], "refuted")
