"""The arithmetic before a payment on a chain: amounts, calls, addresses, numbers. No node is asked here."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from decimal import ROUND_CEILING, Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.chain import RefusedError, Signer, Transaction, bumped, read_transaction, split_url
from countermark.chain.rpc import _result
from countermark.connectors.evm import DRAFTS, Attempt, Ledger, check_addresses
from countermark.model.errors import ArgumentError, ConfigError, CountermarkError, PolicyError
from countermark.model.onchain import OnChain, call_of, encode_call, read_call
from countermark.model.tool import AMOUNT_MAX, ArgSpec, tool_from_document
from countermark.net import LostError
from countermark.policy import compile_bundle, template_files, with_keys
from countermark_verify.onchain import body_of, check_tool, counted

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
PAYER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
SUPPLIER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
TOKEN = "0x8464135c8F25Da09e49BC8782676a84730C318bC"


def compiled(*changes: tuple[str, str]) -> Any:
    """The template with replacements in ``tools.toml``, compiled."""
    files = template_files("chain-payments")
    files.pop("tests/chain.toml")
    for old, new in changes:
        assert old in files["tools.toml"], old
        files["tools.toml"] = files["tools.toml"].replace(old, new, 1)
    keys = {"treasurer": "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            "controller": "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="}  # fmt: skip
    return compile_bundle(tuple(with_keys(files, keys).items()), {"evm": DRAFTS}).compiled


@pytest.fixture(scope="module")
def tools() -> Any:
    return compiled().tools


def naive(text: str, unit: int) -> int:
    """The same by decimal fractions, with enough digits."""
    with localcontext() as context:
        context.prec = 200
        return int((Decimal(text) / Decimal(unit)).to_integral_value(ROUND_CEILING))


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**256), st.integers(0, 24))
def test_amounts_are_counted_up_and_what_does_not_fit_is_refused(units: int, zeros: int) -> None:
    """Base units in the declared unit, rounded against whoever spends, as a naive model counts; the verifier agrees."""
    spec = ArgSpec("amount", "string", "amount", "amount", chars_max=78, unit=10**zeros)
    expected = naive(str(units), 10**zeros)
    item = {"unit": str(10**zeros)}
    if 1 <= expected <= AMOUNT_MAX and 1 <= units < 2**256:
        assert spec.check(str(units)) == str(units)
        assert spec.counted(str(units)) == expected == counted(item, str(units))
        assert expected * 10**zeros >= units > (expected - 1) * 10**zeros
    else:
        with pytest.raises(ArgumentError):
            spec.check(str(units))


@pytest.mark.parametrize("text", ["", "0", "01", "-1", "+1", "1.0", "1e3", " 1", "1_0", "0x1", "١", "1\n", str(2**256)])
def test_an_amount_has_one_spelling(text: str) -> None:
    """Digits without a sign, a point, an exponent or a leading zero; the verifier reads no other either."""
    spec = ArgSpec("amount", "string", "amount", "amount", chars_max=100, unit=1)
    with pytest.raises(ArgumentError):
        spec.check(text)
    assert counted({"unit": "1"}, text) is None


_VALUES = {
    "address": st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex()),
    "bool": st.booleans(),
    "uint256": st.integers(0, 2**256 - 1).map(str),
    "uint8": st.integers(0, 255).map(str),
    "bytes32": st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex()),
    "bytes4": st.binary(min_size=4, max_size=4).map(lambda raw: "0x" + raw.hex()),
}


@pytest.mark.slow  # eth-abi takes seconds to import
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_call_is_what_the_contract_abi_says(data: st.DataObject) -> None:
    """Held against eth-abi, which shares nothing with it; the verifier makes the same body from the same values."""
    from eth_abi import encode

    types = data.draw(st.lists(st.sampled_from(sorted(_VALUES)), min_size=1, max_size=6))
    values = {f"a{at}": data.draw(_VALUES[kind]) for at, kind in enumerate(types)}
    spec = OnChain(1, PAYER, contract=TOKEN, function=f"f({','.join(types)})", selector="deadbeef",
                   inputs=tuple(values), gas_max=50_000, fee_max=7)  # fmt: skip
    plain = [int(v) if kind.startswith("uint") else bytes.fromhex(v[2:]) if kind.startswith("bytes") else v
             for kind, v in zip(types, values.values(), strict=True)]  # fmt: skip
    call = call_of(spec, values)
    assert call.data == bytes.fromhex("deadbeef") + encode(types, plain)
    assert read_call(encode_call(call)) == call
    assert body_of(spec.document(), values) == encode_call(call)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("uint8", "256"), ("uint256", str(2**256)), ("uint256", "-1"), ("uint256", True), ("bool", "yes"), ("bool", 1),
     ("address", "0x00"), ("bytes4", "0xABCDEF01"), ("bytes4", "0xabcdef"), ("uint256", "0x10")],
)  # fmt: skip
def test_a_value_that_its_type_cannot_hold_is_refused(kind: str, value: Any) -> None:
    """Too large, mistyped, in another spelling: no call is made of it."""
    spec = OnChain(1, PAYER, contract=TOKEN, function=f"f({kind})", selector="deadbeef", inputs=("a",))
    with pytest.raises(ArgumentError):
        call_of(spec, {"a": value})


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (SUPPLIER.lower(), "check sum"), (SUPPLIER.swapcase().replace("0X", "0x"), "check sum"),
        ("0x" + "0" * 40, "nobody"), ("0x" + "0" * 39 + "4", "nobody"),
        ("0x0200000000000000000000000000000000000005", "nobody"), (TOKEN, "token itself"), (PAYER, "account that pays"),
    ],
)  # fmt: skip
def test_a_payee_is_somebody_in_the_one_spelling(tools: Any, address: str, why: str) -> None:
    """Another spelling, nobody's address, the token's own contract, the payer: refused before a decision."""
    with pytest.raises(ArgumentError, match=why):
        check_addresses(tools["usdx.transfer"], {"to": address, "amount": "1", "invoice": "I"})


def test_the_right_spelling_is_told_only_where_it_cannot_be_a_mistake() -> None:
    """All lower case was never check-summed, so the spelling is offered; a wrong check sum is a typing error."""
    from countermark.model.keccak import address_bytes

    with pytest.raises(ArgumentError) as plain:
        address_bytes(SUPPLIER.lower())
    with pytest.raises(ArgumentError) as mistyped:
        address_bytes(SUPPLIER.replace("79C8", "79c8"))
    assert SUPPLIER in plain.value.hint
    assert "0x" not in mistyped.value.hint


def test_a_compiled_tool_is_read_back_and_the_verifier_takes_it(tools: Any) -> None:
    """The document of a tool on a chain is the tool; its request names chain, account and bounds, and no number."""
    for name, tool in tools.items():
        document = json.loads(json.dumps(tool.document()))
        assert tool_from_document(document) == tool
        check_tool(name, document)
    body = json.loads(encode_call(call_of(tools["usdx.transfer"].evm, {"to": SUPPLIER, "amount": "5"})))
    assert sorted(body) == ["chain_id", "data", "fee_max", "from", "gas_max", "to", "value"]
    assert (body["to"], body["value"]) == (TOKEN, "0")


@pytest.mark.parametrize(
    "changes",
    [
        [('from = "0xf39F', 'from = "0xf39f')],
        [("chain_id = 43112", "chain_id = 0")],
        [("digits = 6", "digits = 19")],
        [('like = "evm.native.transfer"', 'like = "evm.native.send"')],
        [("gas_max = 30000", "gas_max = 1")],
        [("gas_max = 120000", 'gas_max = 120000\nfunction = "burn(uint256)"')],
        [('contract = "0x8464135c8F25Da09e49BC8782676a84730C318bC"', 'contract = "0x' + "0" * 40 + '"')],
        [('currency = "avax"', 'currency = "avax"\nendpoint = "POST https://elsewhere.example/x"')],
        [('currency = "avax"', 'currency = "avax"\nrecovery = "escalate"')],
        [('[tool."avax.transfer".args.invoice]', '[tool."avax.transfer".args.to]\nsensitive = true\n'
          '[tool."avax.transfer".args.invoice]')],
        # An allowance that calls itself a change would pass every limit.
        [('like = "evm.native.transfer"', 'like = "evm.contract.call"'),
         ("decimals = 18\ndigits = 6\n", f'contract = "{TOKEN}"\nfunction = "approve(address,uint256)"\n'
          'inputs = ["who", "much"]\n'),
         ('[tool."avax.transfer".args.invoice]', '[tool."avax.transfer".args.who]\nclass = "payee"\nrequired = true\n'
          '[tool."avax.transfer".args.much]\nclass = "inert"\nrequired = true\n[tool."avax.transfer".args.invoice]')],
    ],
)  # fmt: skip
def test_a_declaration_that_would_let_money_slip_is_refused(changes: list[tuple[str, str]]) -> None:
    """A mistyped account, no such chain, too fine a unit, an amount that is no part of the call: no bundle."""
    with pytest.raises(PolicyError):
        compiled(*changes)


def test_two_intents_never_share_a_number(tmp_path: Path) -> None:
    """Sixteen threads take numbers at once; each intent keeps its own, also after the file is opened again."""
    ledger = Ledger(tmp_path / "n.db", lambda: 7)
    found: dict[str, int] = {}

    def take(key: str) -> None:
        slot = ledger.take(key, 1, PAYER, 5, lambda nonce: Attempt(f"{key}:{nonce}", 2, 1, cancels=False))
        found[key] = -1 if slot is None else slot.nonce

    threads = [threading.Thread(target=take, args=(f"k{n}",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found.values()) == list(range(5, 21))
    ledger.close()
    again = Ledger(tmp_path / "n.db", lambda: 9)
    assert {key: again.find(key).nonce for key in found} == found  # type: ignore[union-attr]
    assert again.born_at == 7
    take("k3")
    assert found["k3"] == again.find("k3").nonce  # type: ignore[union-attr]


def test_a_number_that_nothing_was_sent_under_is_free_again(tmp_path: Path) -> None:
    """No hole stays behind an intent whose connection was refused; one that was sent keeps its number for good."""
    ledger = Ledger(tmp_path / "n.db", lambda: 0)
    for key in ("a", "b", "c"):
        ledger.take(key, 1, PAYER, 0, lambda nonce, key=key: Attempt(f"{key}:{nonce}", 2, 1, cancels=False))  # type: ignore[misc]
    ledger.release("b")
    slot = ledger.take("d", 1, PAYER, 0, lambda nonce: Attempt(f"d:{nonce}", 2, 1, cancels=False))
    assert slot is not None
    assert (slot.nonce, ledger.find("b")) == (1, None)
    ledger.settle("a")
    assert [one.key for one in ledger.open(1, PAYER)] == ["d", "c"]


def test_a_higher_fee_is_one_that_nodes_take_and_never_above_the_approved() -> None:
    """Both fees rise by more than a tenth; where that is more than was approved, there is none."""
    first = Transaction(1, 0, SUPPLIER, 1, b"", 21_000, 1_000, 10)
    higher = bumped(first, 1_050, 5_000)
    assert higher is not None
    assert (higher.fee_max, higher.tip_max, higher.nonce, higher.to) == (1_130, 12, 0, SUPPLIER)
    assert bumped(first, 9_000, 5_000) == Transaction(1, 0, SUPPLIER, 1, b"", 21_000, 5_000, 12)
    assert bumped(first, 0, 1_129) is None


@pytest.mark.slow  # eth-account takes seconds to import
def test_a_signature_is_the_same_each_time_and_tells_its_account() -> None:
    """Deterministic bytes: after a crash the same transaction has the same hash. A key is never shown."""
    signer, one = Signer(KEY), Transaction(43_112, 3, SUPPLIER, 10**18, b"\x01", 30_000, 9, 2)
    signed = signer.sign(one)
    assert signer.sign(one) == signed
    assert read_transaction(signed.raw) == (one, PAYER)
    assert KEY[2:] not in repr(signer) + str(vars(type(signer)))
    with pytest.raises(ConfigError) as wrong:
        Signer("0x" + "0" * 64)
    assert "0" * 64 not in str(wrong.value)


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://example.com", "https://u@h/x", "https://h/x?y", "https://h//x", "h"]
)
def test_a_node_has_a_plain_address(url: str) -> None:
    """https, or http on this machine; no user, no query, no doubled slash."""
    from countermark.chain import Rpc

    with pytest.raises(CountermarkError):
        Rpc(url, 1)
    assert split_url("https://h.example:9650/ext/bc/C/rpc") == ("https://h.example:9650", "/ext/bc/C/rpc")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(("jsonrpc", "id", "result", "error", "code", "message")), inner, max_size=4), max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_garbage_from_a_node_is_no_answer(body: bytes) -> None:
    """Whatever comes back is an answer to this question, a refusal, or lost; nothing else escapes."""
    try:
        _result(body, 7)
    except (LostError, RefusedError):
        return
    found = json.loads(body)
    assert (found["jsonrpc"], found["id"], "result" in found) == ("2.0", 7, True)


@pytest.mark.parametrize("result", [b"[" * 90_000 + b"]" * 90_000, b"[" + b"[]," * 250_000 + b"0]",
                                    b"[" + b"0," * 1_100_000 + b"0]"])  # fmt: skip
def test_an_answer_that_would_take_long_or_deep_to_read_is_not_read(
    result: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 MB of empty lists held the whole gate up for five seconds; and while a library raises the limit of recursion,
    a deep answer would end the process. Neither reaches the reader that knows no such bounds.
    """
    monkeypatch.setattr("countermark.chain.rpc.json.loads", pytest.fail)
    with pytest.raises(LostError):
        _result(b'{"jsonrpc":"2.0","id":7,"result":' + result + b"}", 7)


def test_signing_leaves_the_interpreters_limit_of_recursion_alone() -> None:
    """The library that signs raises it to 100,000, under which deep JSON ends the process; ours puts it back."""
    script = "import sys; from countermark.chain import transactions as t; t._library(); print(sys.getrecursionlimit())"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1000"
