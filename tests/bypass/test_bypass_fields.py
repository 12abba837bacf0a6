"""Fields that are misspelt, doubled, in another place, or not the caller's to set."""

from __future__ import annotations

import json
from typing import Any

import pytest
from siege import ACME, STRANGER, TOOL, Siege, args_for

MISSPELT: list[dict[str, Any]] = [
    {"Amount": 9}, {"amount ": 9}, {" amount": 9}, {"amount\u200b": 9}, {"\u0430mount": 9}, {"amount[]": 9},
    {"amounts": 9},
    {"args": {"amount": 9}}, {"invoice": "OTHER"}, {"metadata": {"invoice": "OTHER"}}, {"metadata.invoice": "OTHER"},
    {"metadata[Invoice]": "OTHER"}, {"metadata[invoice][]": "OTHER"}, {"__proto__": {"amount": 9}}, {"": 9},
    {"metadata[countermark_key]": "cm_" + "0" * 48}, {"idempotency_key": "mine"}, {"on_behalf_of": STRANGER},
]  # fmt: skip
OF_THE_GATE: list[dict[str, Any]] = [
    {"agent": "ops"}, {"tier": "embedded"}, {"mandate": "sha256:" + "0" * 64}, {"disposition": "allow"},
    {"approved": True}, {"facts": {}}, {"monitor": True}, {"scope": None}, {"Tool": TOOL}, {"wait": "decision"},
    {"by": "person:treasurer"}, {"at": 1}, {"id": "act_" + "0" * 32}, {"key": "cm_" + "0" * 48},
]  # fmt: skip
# Replacements in the text of an ordinary request.
TWICE = [
    ('"amount": 1000', '"amount": 1000, "amount": 1'), ('"amount": 1000', '"amount": 1000, "\\u0061mount": 1'),
    ('"amount": 1000', '"amount": 1, "am\\u006funt": 1000'), ('"tool":', '"tool": "stripe.payouts.create", "tool":'),
    ('"call_id":', '"call_id": "other", "call_id":'), ('"args":', '"args": {}, "args":'),
    (f'"destination": "{ACME}"', f'"destination": "{ACME}", "destination": "{STRANGER}"'),
]  # fmt: skip
OTHER_READINGS = [
    b"\xef\xbb\xbf%s", b"%s%s", b"%s\x00", b"%s//x", b"/**/%s", b"[%s]", b"'%s'", b"callback(%s)", b"%s{}", b"\x1e%s",
]  # fmt: skip


def body(invoice: str) -> str:
    return json.dumps({"call_id": "twice", "tool": TOOL, "args": args_for(invoice)})


@pytest.mark.parametrize("more", MISSPELT, ids=lambda more: ascii(next(iter(more))))
def test_a_misspelt_argument(siege: Siege, more: dict[str, Any]) -> None:
    """Prevented: an argument misspelt, in other case, with a look-alike letter, under its alias, or one that only the
    gate sets: nothing is ignored, so no rule is left without its field.
    """
    answer = siege.act({**args_for("FIELD-1"), **more})
    assert (answer.status, answer.code) == (400, "unknown_argument"), answer.body
    assert siege.paid("FIELD-1") + siege.paid("OTHER") == []


@pytest.mark.parametrize("more", OF_THE_GATE, ids=lambda more: next(iter(more)))
def test_a_member_that_is_the_gates(siege: Siege, more: dict[str, Any]) -> None:
    """Prevented: a request that says itself who asks, in which tier, under which mandate, or that it is approved."""
    answer = siege.act(args_for("FIELD-2"), **more)
    assert (answer.status, answer.code) == (400, "unknown_argument"), answer.body
    assert siege.paid("FIELD-2") == []


@pytest.mark.parametrize(("old", "new"), TWICE, ids=[new[:40] for _, new in TWICE])
def test_a_key_twice(siege: Siege, old: str, new: str) -> None:
    """Prevented: a JSON key twice, also by an escape, where one reader takes the first and another the last."""
    text = body("FIELD-3")
    assert old in text
    answer = siege.ask("POST", "/v1/actions", text.replace(old, new).encode())
    assert (answer.status, answer.code) == (400, "bad_encoding"), answer.body
    assert siege.paid("FIELD-3") == []


@pytest.mark.parametrize("form", OTHER_READINGS, ids=ascii)
def test_a_body_that_is_more_than_json(siege: Siege, form: bytes) -> None:
    """Prevented: a byte-order mark, comments, a second document or trailing bytes around a good request."""
    raw = body("FIELD-4").encode()
    answer = siege.ask("POST", "/v1/actions", form % ((raw,) * form.count(b"%s")))
    assert (answer.status, answer.code) == (400, "bad_encoding"), answer.body
    assert siege.paid("FIELD-4") == []


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32", "utf-7"])
def test_a_body_in_another_coding(siege: Siege, coding: str) -> None:
    """Prevented: a request in another coding than UTF-8, also when its header says so."""
    raw = body("FIELD-5").replace('"', "+ACI-").encode() if coding == "utf-7" else body("FIELD-5").encode(coding)
    assert siege.ask("POST", "/v1/actions", raw).status == 400
    said = {"content-type": f"application/json; charset={coding}"}
    assert siege.ask("POST", "/v1/actions", raw, said).status == 415
    assert siege.paid("FIELD-5") == []


@pytest.mark.parametrize(
    "fields",
    [
        [("amount", "1000"), ("amount", "1")], [("amount", "1000"), ("Amount", "1")], [("amount[]", "1000")],
        [("amount", "1000"), ("amount[0]", "1")], [("amount", "1000"), ("transfer_data[destination]", STRANGER)],
        [("amount", "1000"), ("metadata[countermark_key]", "cm_1")], [("amount", "1000"), ("destination", STRANGER)],
        [("amount", "1000"), ("metadata[invoice]", "FIELD-7")], [("amount", "1000"), ("expand[]", "destination")],
    ],
    ids=lambda fields: fields[-1][0],
)  # fmt: skip
def test_a_form_field_twice_or_unknown(siege: Siege, fields: list[tuple[str, str]]) -> None:
    """Prevented: in a Stripe SDK's form, a field twice, an array, a nested payee, or the gate's own metadata."""
    others = [("currency", "eur"), ("destination", ACME), ("metadata[invoice]", "FIELD-6")]
    assert siege.form([*others, *fields]).status == 400
    assert siege.paid("FIELD-6") + siege.paid("FIELD-7") == []


@pytest.mark.parametrize("raw", [b"amount=5;amount=1", b"amount=5&&", b"amount%3D5", b"amount=%zz", b"amount=\xff"])
def test_a_form_that_readers_differ_on(siege: Siege, raw: bytes) -> None:
    """Prevented: a form with semicolons, empty fields, broken percent signs or bytes that are no text."""
    good = b"currency=eur&destination=" + ACME.encode() + b"&metadata%5Binvoice%5D=FIELD-8&"
    assert siege.form(good + raw).status == 400
    assert siege.paid("FIELD-8") == []


def test_parameters_in_two_places(siege: Siege) -> None:
    """Prevented: parameters of a payment in the address as well as in the body, where servers prefer either."""
    fields = [("amount", "1000"), ("currency", "eur"), ("destination", ACME), ("metadata[invoice]", "FIELD-9")]
    assert siege.form(fields, "/v1/transfers?amount=1").status == 400
    assert siege.act(args_for("FIELD-9")).status == 200
    assert siege.ask("POST", "/v1/actions?tool=stripe.payouts.create", {}).status == 400
    assert len(siege.paid("FIELD-9")) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"metadata[invoice]": "OTHER"}, {"metadata": {"invoice": "OTHER"}}, {"amount.value": 1}, {"Amount": 1},
        {"amount": "1000"}, {"amount": 1000.5}, {"amount": {"": 1000}}, {"amount": [1000]}, {"amount": True},
        {"args": {}},
    ],
    ids=lambda more: json.dumps(more),
)  # fmt: skip
def test_arguments_over_mcp(siege: Siege, more: dict[str, Any]) -> None:
    """Prevented: over MCP, an argument under two of its names, nested, misspelt, or an amount of another type."""
    terms = {"amount": 1_000, "currency": "eur", "destination": ACME, "invoice": "FIELD-M"}
    answer = siege.mcp(TOOL, {**terms, **more})
    assert answer.status == 400 or answer.json["result"]["isError"] is True, answer.body
    assert siege.paid("FIELD-M") + siege.paid("OTHER") == []


def test_one_invoice_on_every_face(siege: Siege) -> None:
    """Prevented: an invoice paid over MCP, then again as an action and by a Stripe SDK: it is one obligation."""
    terms = {"amount": 1_000, "currency": "eur", "destination": ACME, "invoice": "FIELD-N"}
    assert siege.mcp(TOOL, terms).json["result"]["isError"] is False
    assert siege.act(args_for("FIELD-N")).code == "duplicate_obligation"
    assert siege.form(args_for("FIELD-N")).status == 400
    assert siege.mcp(TOOL, terms).json["result"]["isError"] is True
    assert len(siege.paid("FIELD-N")) == 1
