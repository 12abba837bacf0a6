"""Deployments that pay on a real EVM: a node, a token, a gate, and the chain's own balances as the judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anvil_support import CHAIN_ID, KEYS, Anvil
from support import records

import countermark
from countermark.model.keccak import keccak
from countermark.policy import template_files
from countermark.wiring.init import Made, init_deployment

HERE = Path(__file__).resolve().parent
TOKEN_CODE = (HERE / "evm" / "Token.hex").read_text().strip()
PAYER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
SUPPLIER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
EXCHANGE = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
STRANGER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
TOKEN = "0x8464135c8F25Da09e49BC8782676a84730C318bC"  # the first contract of the supplier's account
PAYER_KEY = KEYS[0]
COIN, USDX = 10**18, 10**6
SUPPLY = 1_000 * USDX


def selector(signature: str) -> str:
    return keccak(signature.encode()).hex()[:8]


def word(value: int | str) -> str:
    return f"{value if type(value) is int else int(str(value), 16):064x}"


def send(node: Anvil, sender: str, to: str | None, data: str = "0x", value: int = 0) -> Any:
    """A transaction that the node signs itself, for what a test's surroundings do."""
    fields = {"from": sender, "data": data, "value": hex(value), "gas": hex(2_000_000)}
    return node.ask("eth_sendTransaction", fields if to is None else {**fields, "to": to})


def deploy_token(node: Anvil) -> None:
    """The token at its known address; all of it is the payer's."""
    send(node, SUPPLIER, None, TOKEN_CODE + word(SUPPLY))
    node.mine()
    send(node, SUPPLIER, TOKEN, "0x" + selector("transfer(address,uint256)") + word(PAYER) + word(SUPPLY))
    node.mine()
    assert tokens(node, PAYER) == SUPPLY


def behave(node: Anvil, keep: int = 0, mood: int = 0) -> None:
    """How the token keeps its word from now on."""
    send(node, SUPPLIER, TOKEN, "0x" + selector("behave(uint256,uint256)") + word(keep) + word(mood))
    node.mine()


def tokens(node: Anvil, account: str) -> int:
    data = "0x" + selector("balanceOf(address)") + word(account)
    return int(node.ask("eth_call", {"to": TOKEN, "data": data}, "latest"), 16)


def allowed(node: Anvil, spender: str) -> int:
    data = "0x" + selector("allowance(address,address)") + word(PAYER) + word(spender)
    return int(node.ask("eth_call", {"to": TOKEN, "data": data}, "latest"), 16)


def coins(node: Anvil, account: str) -> int:
    return int(node.ask("eth_getBalance", account, "latest"), 16)


def sent(node: Anvil, account: str = PAYER) -> int:
    """How many transactions of the account stand in blocks."""
    return int(node.ask("eth_getTransactionCount", account, "latest"), 16)


def made(
    root: Path, node_url: str, *, final: str | int = "accepted", tools: Mapping[str, str] | None = None,
    chain_id: int = CHAIN_ID,
) -> Made:  # fmt: skip
    """A deployment of the template, over this node. ``tools`` are replacements in ``tools.toml``."""
    files = template_files("chain-payments")
    text = files["tools.toml"]
    for old, new in (tools or {}).items():
        assert old in text
        text = text.replace(old, new)
    found = init_deployment(root, "chain-payments", "test", edit={"tools.toml": text})
    key = root / "keys" / "payer"
    key.write_text(PAYER_KEY)
    key.chmod(0o600)
    path = root / "countermark.toml"
    config = path.read_text().replace("http://127.0.0.1:8545", node_url).replace("env:EVM_PAYER_KEY", "file:keys/payer")
    said = f'"{final}"' if type(final) is str else str(final)
    config = config.replace('final = "accepted"', f"final = {said}").replace("chains.43112", f"chains.{chain_id}")
    path.write_text(config)
    return found


def hold(root: Path) -> countermark.Deployment:
    return countermark.open(root, agent="treasury")


def pay_coins(
    handle: countermark.Deployment, number: object, value: int = COIN, to: str = SUPPLIER, **more: Any
) -> Any:
    args = {"to": to, "value": str(value), "invoice": f"INV-{number}"}
    return handle.act("avax.transfer", args, call_id=f"pay-{number}", **more)


def pay_tokens(handle: countermark.Deployment, number: object, amount: int = USDX, to: str = SUPPLIER) -> Any:
    return handle.act(
        "usdx.transfer", {"to": to, "amount": str(amount), "invoice": f"INV-{number}"}, call_id=f"pay-{number}"
    )


def settled(root: Path) -> list[Any]:
    return [record.body for record in records(root) if record.kind == "action.settled"]
