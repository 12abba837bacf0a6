"""``countermark demo anchor``: the demo's log in a contract, and an insider whose second history the chain refuses.

Needs the extra [evm] and `anvil`, an EVM node for one machine. What is shown is the contract's rule on a real EVM; the
consensus of a public chain is not.
"""

from __future__ import annotations

import base64
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.audit import export_pack
from countermark.journal import SqliteStore
from countermark.log import Frontier, leaf_hash
from countermark.model.clock import SystemClock
from countermark.model.errors import ConfigError, CountermarkError
from countermark.model.ports import Head
from countermark.policy import Bundle
from countermark.wiring.anchoring import JournalFacts, record_anchor
from countermark.wiring.config import Config, load_config
from countermark.wiring.demo import ANCHORED, MARK, Stage, euros, verified, victim
from countermark.wiring.demo_insider import rewrite
from countermark.wiring.log_keys import log_signer

if TYPE_CHECKING:
    from countermark.chain import Rpc, Signer
    from countermark.publish import AnchorSettings

CHAIN_ID = 43_112  # of a local Avalanche network
START_S_MAX = 30
SENT_S_MAX = 10
WEI = 10**18
FORCED_GAS = 200_000
COPY, PACK, TRUST = ANCHORED
WHERE = "node_modules/@foundry-rs/anvil-*/bin/anvil"  # npm's own `anvil` is a script that starts this
_LISTENS = re.compile(r"Listening on (127\.0\.0\.1:[0-9]+)")


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """What an anchor asks of a log, answered by the insider's records."""

    leaves: Sequence[bytes]

    def size(self) -> int:
        return len(self.leaves)

    def root_at(self, size: int) -> bytes:
        frontier = Frontier()
        for leaf in self.leaves[:size]:
            frontier.append(leaf)
        return frontier.root()

    def recorded(self, sequence: int, since: int) -> bool:
        return True  # whatever was anchored, the insider's records tell of it


@dataclass(frozen=True, slots=True)
class _Chain:
    """The node, the account that owns the contract, and the contract."""

    rpc: Rpc
    owner: Signer
    settings: AnchorSettings

    def refused(self, call: bytes) -> str:
        """Why the contract would refuse a call of its owner: what the node says when it tries."""
        from countermark.chain import ChainError
        from countermark.publish import plan

        try:
            plan(self.rpc, self.owner, self.settings.contract, call, self.settings.fees)
        except ChainError as error:
            return error.message.rpartition(": ")[2] if error.code == "anchor_refused" else ""
        return ""

    def forced(self, call: bytes) -> Mapping[str, Any]:
        """The same call sent all the same: its receipt."""
        from countermark.chain import Transaction
        from countermark.publish import send

        fees, rpc = self.settings.fees, self.rpc
        nonce = rpc.transactions_of(self.owner.address)
        sent = self.owner.sign(
            Transaction(rpc.chain_id, nonce, self.settings.contract, 0, call, FORCED_GAS, fees.fee_max, fees.tip_max)
        )
        send(rpc, sent)
        pause = threading.Event()
        for _ in range(SENT_S_MAX * 50):
            if (receipt := rpc.receipt(sent.hash)) is not None:
                return receipt
            pause.wait(0.02)
        raise ConfigError("no block holds the insider's transaction")


def run_anchor(root: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Anchor the log of the demo in ``root``, then its rewrite; returns figures. Raises ``CountermarkError``."""
    if not (root / MARK).exists() or not (root / "evidence.zip").exists():
        raise ConfigError(f"{root} holds no demo", hint="Run `countermark demo` first.")
    if find_spec("eth_account") is None:
        raise ConfigError(
            "the extra [evm] is not installed", code="missing_extra", hint="pip install 'countermark[evm]'"
        )
    stage = Stage(root, say)
    with ExitStack() as ends:
        url = ends.enter_context(_node())
        scratch = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="countermark-demo-")))
        config = load_config(_copied(root))
        chain = ends.enter_context(_contract(stage, url, config))
        anchored = [_anchored(stage, chain, config, scratch, head) for head in _heads(root, config)]
        met = _insider(stage, chain, config, scratch, anchored[-1])
        return {"chain_id": CHAIN_ID, "anchored": anchored, **met, **_prove(stage, chain, config, anchored)}


def as_told(figures: Mapping[str, Any]) -> bool:
    """Whether everything that the insider tried was refused, and the honest log counts as anchored."""
    return (
        all(figures["refused"].values())
        and (figures["forced_status"], figures["gate"]) == (0, "anchor_fork")
        and figures["unchanged"] is True
        and (figures["verdict"], figures["integrity"]) == ("verified", "anchored")
    )


def _copied(root: Path) -> Path:
    """The demo's deployment once more, so that its log can be anchored in a new contract each time."""
    copy = root / COPY
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root / "deployment", copy)
    return copy


@contextmanager
def _node() -> Iterator[str]:
    """A chain on this machine, new and empty; its address. It is ended on the way out."""
    found = next(map(str, Path.cwd().glob(WHERE)), None) or shutil.which("anvil")
    if found is None:
        raise ConfigError("there is no `anvil`, an EVM node for one machine", code="missing_program",
                          hint="npm install @foundry-rs/anvil, here or with -g")  # fmt: skip
    words = [found, "--host", "127.0.0.1", "--port", "0", "--chain-id", str(CHAIN_ID)]
    small = {"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=small,
                          start_new_session=True) as child:  # fmt: skip
        try:
            yield f"http://{_address(child.stdout)}"
        finally:
            os.killpg(child.pid, signal.SIGKILL)  # a script in front of it would leave it running


def _address(said: Any) -> str:
    """What the node says it listens on. Its later lines are read by nobody and must not fill the pipe."""
    text = ""
    while select.select([said], [], [], START_S_MAX)[0] and (part := os.read(said.fileno(), 4096)):
        text += part.decode(errors="replace")
        if found := _LISTENS.search(text):
            threading.Thread(target=said.read, daemon=True).start()
            return found[1]
    raise ConfigError("anvil did not start")


@contextmanager
def _contract(stage: Stage, url: str, config: Config) -> Iterator[_Chain]:
    """The anchor contract of a new account, which this chain gives a coin."""
    import secrets

    from countermark.chain import Rpc, Signer
    from countermark.publish import AnchorSettings, deploy_anchor

    owner = Signer(secrets.token_hex(32))
    with closing(Rpc(url, CHAIN_ID)) as rpc:
        rpc.call("anvil_setBalance", owner.address, hex(WEI))
        settings = AnchorSettings(CHAIN_ID, "", config.origin, poll_ms=20)
        made = deploy_anchor(rpc, owner, settings.fees, SystemClock())
        stage.say(f"1. A chain on this machine (anvil, one node, chain id {CHAIN_ID}). The anchor contract is made:")
        stage.say(f"   contract {made.contract}   owner {made.owner}")
        yield _Chain(rpc, owner, AnchorSettings(CHAIN_ID, made.contract, config.origin, poll_ms=20))


def _heads(root: Path, config: Config) -> list[Head]:
    """The heads that the auditor of the demo kept at noon and in the evening."""
    kept = json.loads((root / "trust.json").read_text("utf-8"))["heads"][-2:]
    with closing(SqliteStore(config.journal, readonly=True)) as store:
        found = [(one, store.head_at(one["size"])) for one in kept]
    return [Head(one["size"], base64.b64decode(one["root"]), note) for one, note in found if note is not None]


def _anchored(stage: Stage, chain: _Chain, config: Config, scratch: Path, head: Head) -> dict[str, Any]:
    """One head in the contract, its evidence recorded as a gate records it."""
    from countermark.publish import ChainAnchor, PendingFile

    anchor = ChainAnchor(chain.settings, chain.rpc, lambda: chain.owner, JournalFacts(config),
                         PendingFile(scratch / "honest"), SystemClock())  # fmt: skip
    answer = anchor.publish(head)
    if answer is None or not record_anchor(config, *answer):
        raise ConfigError("the head was not anchored", hint="Is a gate running on the demo's deployment?")
    body = answer[1]
    if body["sequence"] == 1:
        stage.say("")
        stage.say("2. The demo's log is anchored twice, as a gate does it by itself:")
    stage.say(f"   head {body['sequence']}: {body['size']:>5} records, root {head.root.hex()[:16]}…, block "
              f"{body['block']['number']}")  # fmt: skip
    return {name: body[name] for name in ("sequence", "size", "root", "block")}


def _insider(
    stage: Stage, chain: _Chain, config: Config, scratch: Path, newest: Mapping[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """Has the database, the log's key and the key that owns the contract; wants another history there."""
    from countermark.publish import (
        Anchored,
        BehindAnchorError,
        ChainAnchor,
        PendingFile,
        anchor_call,
        standing,
    )

    changed, seq, old = _rewritten(config, newest["size"])
    log = _Rewritten([leaf_hash(raw) for raw in changed])
    here, other = bytes.fromhex(newest["root"]), log.root_at(newest["size"])
    stage.say("")
    stage.say(
        f"3. An insider owns the database, the log's key and the key that owns the contract. Record {seq} becomes "
        f"{euros(old - 1_000)} instead of {euros(old)}, everything is rebuilt, and the contract is to take it:"
    )
    tries = {
        "in place of the anchored head": Anchored(newest["sequence"] + 1, newest["size"], other, here),
        "as what went before": Anchored(newest["sequence"] + 1, newest["size"] + 1, log.root_at(newest["size"]), other),
        "as a shorter log": Anchored(newest["sequence"] + 1, newest["size"] - 1, log.root_at(newest["size"] - 1), here),
    }
    refused = {how: chain.refused(anchor_call(config.origin, head)) for how, head in tries.items()}
    receipt = chain.forced(anchor_call(config.origin, tries["as what went before"]))
    number, status = (int(receipt[name], 16) for name in ("blockNumber", "status"))
    after = standing(chain.rpc, chain.settings.contract, config.origin)
    gate = ChainAnchor(chain.settings, chain.rpc, lambda: chain.owner, log, PendingFile(scratch / "forged"),
                       SystemClock())  # fmt: skip
    opened = ""
    try:
        gate.check()
    except BehindAnchorError as error:
        opened = error.code
    for how, said in refused.items():
        _row(stage, how, said or "TAKEN")
    _row(stage, "the second, sent all the same", f"block {number}, status {status}: "
         + ("it failed, and everybody sees that it was tried" if status == 0 else "IT WAS TAKEN"))  # fmt: skip
    _row(stage, "the contract holds", f"head {after.sequence}, {after.size} records, root {after.root.hex()[:16]}…")
    _row(stage, "a gate over that database", f"does not open ({opened})" if opened else "OPENS")
    stage.say("   A contract sees roots, not records: with the right root before it, it would take a longer log "
              "that is not this one's. The verifier, which has the records, refutes such a log.")  # fmt: skip
    return {"refused": refused, "forced_status": status, "gate": opened,
            "unchanged": (after.sequence, after.root) == (newest["sequence"], here)}  # fmt: skip


def _row(stage: Stage, what: str, came: str) -> None:
    stage.say(f"   {what + ':':<32}{came}")


def _rewritten(config: Config, size: int) -> tuple[list[bytes], int, int]:
    """The insider's records; which one was changed first, and its amount before."""
    with closing(SqliteStore(config.journal, readonly=True)) as store:
        raws = [raw for _, raw in store.raw(0, size)]
        bundle = next(json.loads(raw)["body"]["activation"]["bundle"] for raw in raws if b'"policy.activated"' in raw)
        compiled = Bundle.from_document(json.loads(store.bundle(bundle) or b"{}"))
    seq, old = victim(raws)
    return rewrite(raws, seq, old - 1_000, compiled, config.deployment), seq, old


def _prove(stage: Stage, chain: _Chain, config: Config, anchored: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The honest log's pack, for an auditor who also asked a node for the newest anchor's block: verdict and axis."""
    block, pack, trust = anchored[-1]["block"], stage.root / PACK, stage.root / TRUST
    asked = chain.rpc.block(hex(block["number"]))
    if asked is None:
        raise CountermarkError("the node has no such block")
    with closing(SqliteStore(config.journal, readonly=True)) as store:
        done = export_pack(pack, store, log_signer(config), deployment=config.deployment, lane=config.lane)
    doc = json.loads((stage.root / "trust.json").read_text("utf-8"))
    doc["heads"].append({"size": done.size, "root": done.root, "source": "kept by the auditor after the anchors"})
    doc["chains"] = [
        {"chain_id": CHAIN_ID, "blocks": [{"number": block["number"], "hash": asked["hash"].removeprefix("0x")}],
         "anchor": {"contract": chain.settings.contract, "owner": chain.owner.address}}
    ]  # fmt: skip
    trust.write_text(json.dumps(doc, indent=1) + "\n", "utf-8")
    report = verified(pack, trust)
    stage.say("")
    stage.say(f"4. The honest log as {PACK}, for an auditor who kept heads and asked a node for one block ({TRUST}):")
    stage.say(f"   {report['verdict'].upper()}, integrity {report['axes']['integrity']['level']}")
    return {"verdict": report["verdict"], "integrity": report["axes"]["integrity"]["level"]}
