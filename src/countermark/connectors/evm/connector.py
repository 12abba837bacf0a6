"""Payments on chains of the EVM family: one intent, one nonce, as many attempts as it takes, one effect at most.

A transaction that was signed may take effect as long as its number is unused, whatever a node answered: so from the
first byte sent nothing is called failed but what a final block proves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from countermark.chain import RefusedError, Signed, Signer, Transaction, bumped
from countermark.connectors.evm.drafts import DRAFTS
from countermark.connectors.evm.ledger import Attempt, Ledger, Slot
from countermark.connectors.evm.node import Fees, Mined, Node, cost_of
from countermark.connectors.evm.outcomes import outcome_of, prove_mined
from countermark.connectors.http_send import LostError, NotSentError
from countermark.model.clock import US, SystemClock
from countermark.model.crash import crash_point
from countermark.model.errors import ArgumentError, ConfigError, CountermarkError
from countermark.model.keccak import address_bytes, is_reserved
from countermark.model.onchain import Call, read_call
from countermark.model.request import prepare
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome, Request

POLL_S = 0.25
PROVE_US_MAX = 120 * US  # a block's transactions are asked for one by one, from a node that may be slow on purpose
CANCEL_GAS = 21_000  # of a transfer of nothing to oneself

Key = Callable[[int, str], Signer]
"""The signer of an account on a chain, read when it is used. Raises ``ConfigError``."""


class EvmConnector:
    """Implements ``Connector``. ``nodes`` are by chain id; ``key`` reads an account's key by its reference."""

    name = "evm"
    blocking = True

    def __init__(self, nodes: Mapping[int, Node], key: Key, ledger: Ledger, *, poll_s: float = POLL_S) -> None:
        self._nodes = nodes
        self._key = key
        self._ledger = ledger
        self._poll_s = poll_s
        self._closing = threading.Event()
        self._running: dict[str, Call] = {}
        self._lock = threading.Lock()

    def tools(self) -> Sequence[ToolSpec]:
        return DRAFTS

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        check_addresses(tool, args)
        return prepare(tool, args, key)

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        """Send once: a first transaction, or for an intent that has one the same again, under a higher fee if it waits.

        Waits until it is final, at most the tool's ``timeout_ms``.
        """
        key = dict(request.headers)["Idempotency-Key"]
        end_us = SystemClock().steady_us() + tool.timeout_ms * 1000
        call = read_call(request.body)
        with self._lock:
            if key in self._running:
                return Outcome("unknown", "provider_error")
            self._running[key] = call
        try:
            slot = self._ledger.find(key)
            if slot is None:
                return self._first(tool, call, key, end_us)
            return self._again(tool, call, slot, end_us)
        finally:
            with self._lock:
                del self._running[key]

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        """What became of the intent's number. Nothing is sent."""
        try:
            call, slot = read_call(request.body), self._ledger.find(key)
            if slot is None:
                lost = self._ledger.born_at > since_us
                return Outcome("unknown", "needs_resolution") if lost else Outcome("failed", "not_found")
            node = self._node(call.chain_id)
            found = self._look(node, tool, call, slot, "found")
        except CountermarkError as error:
            return Outcome("unknown", error.code)
        return found or Outcome("unknown", "timeout")

    def cancel(self, call: Call, key: str) -> str:
        """A person gives an intent's number to a transfer of nothing to the account itself. Returns its hash.

        It competes with the payment: whichever stands in a final block settles the intent, and ``lookup`` says which.

        Raises:
            CountermarkError: nothing was sent for this intent, its number is used, or the node does not take it.
        """
        node, slot = self._node(call.chain_id), self._ledger.find(key)
        if slot is None or slot.settled:
            raise ConfigError("no transaction of this action waits", code="nothing_waits")
        node.rpc.check_chain()
        nothing = replace(call, to=call.sender, value=0, data=b"", gas_max=CANCEL_GAS)
        last = slot.attempts[-1]
        fees = node.fees(replace(nothing, fee_max=max(call.fee_max, 2 * last.fee_max)))
        higher = bumped(_transaction(nothing, slot.nonce, Fees(last.fee_max, last.tip_max)), fees.fee_max, 2**100)
        if higher is None:
            raise ConfigError("the fee cannot be raised", code="fee_too_high")
        signed = self._signer(call).sign(higher)
        self._ledger.add(key, Attempt(signed.hash, higher.fee_max, higher.tip_max, cancels=True))
        node.rpc.call("eth_sendRawTransaction", "0x" + signed.raw.hex())
        return signed.hash

    def hurry(self) -> None:
        """Nothing is sent for the first time or waited for any more, until ``close``."""
        self._closing.set()

    def close(self) -> None:
        """End waiting, close idle connections and the file."""
        self._closing.set()
        for node in self._nodes.values():
            node.rpc.close()
        self._ledger.close()
        self._closing = threading.Event()

    def _first(self, tool: ToolSpec, call: Call, key: str, end_us: int) -> Outcome:
        """Everything that can be known to fail fails before there is a signature; then number, record, send."""
        try:
            if self._closing.is_set():
                raise NotSentError("the gate ends", "gate_halted")
            node = self._node(call.chain_id)
            node.rpc.check_chain()
            signer = self._signer(call)
            self._check_memory(tool)
            sent = node.rpc.transactions_of(call.sender)
            node.check(call, "" if tool.evm is None else tool.evm.shows, self._promised(key, call, sent))
            fees = node.fees(call)
            self._check_waiting(call, sent)
        except NotSentError as error:
            return Outcome("failed", "not_sent", request_id=error.reason)
        except CountermarkError as error:  # a node that answers nonsense, or no longer: still nothing was signed
            return Outcome("failed", "not_sent", request_id=_reason(error))
        signed: list[Signed] = []

        def make(nonce: int) -> Attempt:
            signed.append(signer.sign(_transaction(call, nonce, fees)))
            return Attempt(signed[-1].hash, fees.fee_max, fees.tip_max, cancels=False)

        try:
            slot = self._ledger.take(key, call.chain_id, call.sender, sent, make)
        except CountermarkError as error:
            return Outcome("failed", "not_sent", request_id=_reason(error))
        if slot is None:
            return Outcome("failed", "not_sent", request_id="nonce_blocked")
        crash_point("evm.recorded")
        try:
            self._send(node, signed[-1])
        except NotSentError as error:
            self._ledger.release(key)
            return Outcome("failed", "not_sent", request_id=error.reason)
        crash_point("evm.sent")
        return self._wait(node, tool, call, slot, end_us)

    def _again(self, tool: ToolSpec, call: Call, slot: Slot, end_us: int) -> Outcome:
        """An intent whose transaction may be on its way: never a new number, never failed unless that is proved."""
        try:
            node = self._node(call.chain_id)
            node.rpc.check_chain()
            found = self._look(node, tool, call, slot, "ok")
            if found is not None:
                return found
            if not any(node.mined(attempt.hash) for attempt in slot.attempts):
                self._resend(node, call, slot)
                slot = self._ledger.find(slot.key) or slot
        except CountermarkError as error:
            return Outcome("unknown", error.code if error.code in ("timeout", "not_sent") else "provider_error")
        return self._wait(node, tool, call, slot, end_us)

    def _resend(self, node: Node, call: Call, slot: Slot) -> None:
        """The newest transaction once more; under a higher fee when the node has it and it waits all the same."""
        last = next(attempt for attempt in reversed(slot.attempts) if not attempt.cancels)
        if slot.attempts[-1].cancels:  # a person wants it gone
            return
        signer = self._signer(call)
        transaction = _transaction(call, slot.nonce, Fees(last.fee_max, last.tip_max))
        if node.known(last.hash):
            higher = bumped(transaction, node.fees(call).fee_max, call.fee_max)
            if higher is None:
                return  # it offers all that was approved
            signed = signer.sign(higher)
            self._ledger.add(slot.key, Attempt(signed.hash, higher.fee_max, higher.tip_max, cancels=False))
            crash_point("evm.bumped")
        else:
            signed = signer.sign(transaction)
            if signed.hash != last.hash:
                raise ConfigError("the account's transaction is not the recorded one", code="needs_resolution")
        self._send(node, signed)

    def _send(self, node: Node, signed: Signed) -> None:
        """Hand a transaction to the node. Whatever it answers, it has the bytes now. Raises ``NotSentError``."""
        try:
            node.rpc.call("eth_sendRawTransaction", "0x" + signed.raw.hex())
        except (LostError, RefusedError):
            return

    def _wait(self, node: Node, tool: ToolSpec, call: Call, slot: Slot, end_us: int) -> Outcome:
        closing, code = self._closing, "timeout"
        while True:
            try:
                found = self._look(node, tool, call, slot, "ok")
                if found is not None:
                    return found
                code = "timeout"
            except CountermarkError:
                code = "provider_error"
            left_s = (end_us - SystemClock().steady_us()) / US
            if left_s <= 0 or closing.wait(min(self._poll_s, left_s)):
                return Outcome("unknown", code, ref=slot.attempts[-1].hash)

    def _look(self, node: Node, tool: ToolSpec, call: Call, slot: Slot, code: str) -> Outcome | None:
        """The outcome once one transaction of the intent's number is final; None before that.

        Raises ``CountermarkError`` when the node cannot tell.
        """
        mined: Mined | None = None
        for attempt in reversed(slot.attempts):
            mined = node.mined(attempt.hash)
            if mined is None:
                continue
            if not mined.final:
                return None
            proved = prove_mined(node, mined, self._going())
            self._ledger.settle(slot.key)
            if attempt.cancels:
                return Outcome("failed", "cancelled", ref=mined.hash, evidence=proved.evidence)
            return outcome_of(tool, call, mined, proved, code)
        if node.used_for_good(call.sender, slot.nonce) and not any(node.mined(one.hash) for one in slot.attempts):
            # Somebody else has the key and took the number: what they paid, and whether it was this, people find out.
            self._ledger.settle(slot.key)
            return Outcome("unknown", "needs_resolution")
        return None

    def _going(self) -> Callable[[], bool]:
        """Whether to go on with what takes many questions, asked again and again."""
        closing, end_us = self._closing, SystemClock().steady_us() + PROVE_US_MAX
        return lambda: not closing.is_set() and SystemClock().steady_us() < end_us

    def _check_memory(self, tool: ToolSpec) -> None:
        """A record of nonces that was made anew cannot tell a first attempt from a second: until nothing that is older
        may be dispatched any more, nothing is.
        """
        if SystemClock().now_us() < self._ledger.born_at + tool.dispatch_within_s * US:
            raise NotSentError("the record of nonces is new", "ledger_new")

    def _check_waiting(self, call: Call, sent: int) -> None:
        """Nothing queues up behind a number that nobody works on: it would wait with it. A number that became free
        below one is taken, for that one waits for it.
        """
        with self._lock:
            running = set(self._running)
        waiting = [slot for slot in self._ledger.open(call.chain_id, call.sender) if slot.nonce >= sent]
        free = min(set(range(sent, sent + len(waiting) + 1)) - {slot.nonce for slot in waiting})
        if any(slot.nonce < free and slot.key not in running for slot in waiting):
            raise NotSentError("an earlier transaction of the account waits", "nonce_blocked")

    def _promised(self, key: str, call: Call, sent: int) -> int:
        """What others of the account that are in no block yet may take: a number that nobody can pay for blocks it."""
        with self._lock:
            others = {one: other for one, other in self._running.items() if one != key}
        found = 0
        for one, other in others.items():
            if (other.chain_id, other.sender) == (call.chain_id, call.sender):
                slot = self._ledger.find(one)
                found += 0 if slot is not None and (slot.settled or slot.nonce < sent) else cost_of(other)
        return found

    def _node(self, chain_id: int) -> Node:
        node = self._nodes.get(chain_id)
        if node is None:
            raise NotSentError(f"no node of chain {chain_id} is configured", "other_origin")
        return node

    def _signer(self, call: Call) -> Signer:
        try:
            signer = self._key(call.chain_id, call.sender)
        except ConfigError as error:
            reason = error.code if error.code == "not_enough_people" else "missing_secret"
            raise NotSentError("no key for the account", reason) from None
        if signer.address != call.sender:
            raise NotSentError("the key is another account's", "missing_secret")
        return signer


def check_addresses(tool: ToolSpec, args: Mapping[str, Value]) -> None:
    """Every address that an argument puts into a call is spelled in its one way and somebody's; whoever is paid is
    neither the paying account nor the token itself. Raises ``ArgumentError``.
    """
    spec = tool.evm
    if spec is None:
        raise ArgumentError("this tool does nothing on a chain", code="unknown_tool")
    payee = tool.one("payee")
    addresses = {alias for alias, kind in zip(spec.inputs, spec.types, strict=True) if kind == "address"}
    for alias in sorted(addresses | ({spec.to} if spec.to else set())):
        arg = tool.by_alias.get(alias)
        if arg is None or arg.name not in args:
            continue  # fixed by the bundle, or missing, which is said elsewhere
        text = str(args[arg.name])
        if is_reserved(address_bytes(text, arg.name)):
            raise ArgumentError(f"{arg.name} is an address that nobody has", field=arg.name)
        if payee is not None and arg.name == payee.name and text in (spec.contract, spec.sender):
            raise ArgumentError(f"{arg.name} is the token itself, or the account that pays", field=arg.name)


def _transaction(call: Call, nonce: int, fees: Fees) -> Transaction:
    return Transaction(call.chain_id, nonce, call.to, call.value, call.data, call.gas_max, fees.fee_max, fees.tip_max)


def _reason(error: CountermarkError) -> str:
    return {"timeout": "no_connection", "provider_error": "no_connection"}.get(error.code, error.code)
