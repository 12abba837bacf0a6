"""What an action's arguments become: terms, fields, the business key, the exact request (docs/spec)."""

from __future__ import annotations

import unicodedata
from typing import Any
from urllib.parse import quote, unquote

from build import canonical, digest, doc_digest, pseudonym


def payment(amount: int, payee: str, invoice: str, **more: Any) -> dict[str, Any]:
    """A payment to the account of `payee`, which a bundle may know or not."""
    return {"amount": amount, "currency": "EUR", "destination": f"acct-{payee}", "invoice": invoice} | more


def payee_of(account: str, payees: list[dict[str, str]]) -> str:
    """The payee in an action's terms: known by the account, else a pseudonym of the account."""
    known = [payee["id"] for payee in payees if payee["account"] == account]
    return known[0] if known else "p:" + pseudonym("payee", account)


def terms_of(args: dict[str, Any], payees: list[dict[str, str]]) -> dict[str, Any]:
    if "destination" not in args:
        return {"amount": None, "currency": None, "payee": None}
    terms = {"amount": args.get("amount"), "currency": args["currency"]}
    return terms | {"payee": payee_of(args["destination"], payees)}


def field_of(body: dict[str, Any], name: str) -> Any:
    """A field of an action as docs/spec/facts.md names them; None when absent."""
    if name.startswith("args."):
        value = body["args"].get(name[5:])
        return None if isinstance(value, dict) else value
    if name == "mandate":
        return body["mandates"][0]
    return body["terms"][name] if name in ("payee", "currency", "amount") else body[name]


def matches(fact: dict[str, Any], body: dict[str, Any], output: dict[str, Any] | None = None) -> bool:
    """Whether an event is one that the fact is about; `output` is that of a confirmation."""
    fields = [
        ((output or {}).get(name[7:]) if name.startswith("output.") else field_of(body, name), values)
        for name, values in fact["where"]
    ]
    return all(value is not None and value in values for value, values in fields)


def bucket(at: int, over_us: int) -> int:
    return at // -(-over_us // 63)


def normal(value: Any) -> str:
    """The normal form of an argument's value (docs/spec/decision.md, business key)."""
    return "".join(unicodedata.normalize("NFKC", str(value)).casefold().split())


def obligation(tool: dict[str, Any], args: dict[str, Any], terms: dict[str, Any]) -> str | None:
    if not tool["once_per"]:
        return None
    sealed = {arg["alias"] for arg in tool["args"] if arg["sensitive"] and arg["alias"] in args}
    pairs = []
    for name in sorted(tool["once_per"]):
        text = terms["payee"] if name == "payee" else normal(args.get(name, ""))
        pairs.append([name, "p:" + pseudonym("payee", text) if name in sealed else text])
    return doc_digest("obligation", [tool["once_scope"], pairs])


def form(pairs: list[tuple[str, Any]]) -> str:
    texts = [(n, ("true" if v else "false") if isinstance(v, bool) else str(v)) for n, v in pairs]
    return "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in sorted(texts))


def nested(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One object of all arguments; a dot in a name opens an object."""
    arguments: dict[str, Any] = {}
    for name, value in pairs:
        place, parts = arguments, name.split(".")
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    return arguments


def tools_call(url: str, pairs: list[tuple[str, Any]], key: str) -> bytes:
    """The JSON-RPC request of an MCP tool."""
    tool = unquote(url.rsplit("/", 1)[1])
    call = {"name": tool, "arguments": nested(pairs)}
    return canonical({"jsonrpc": "2.0", "id": key, "method": "tools/call", "params": call})


def chain_call(evm: dict[str, Any], args: dict[str, Any]) -> bytes:
    """The body of a request on a chain, for the functions that the vectors call: addresses and numbers."""
    data = "0x" + evm["selector"]
    for alias in evm["inputs"]:
        value = args[alias]
        data += f"{int(value, 16) if value.startswith('0x') else int(value):064x}"
    members = {name: evm[name] for name in ("chain_id", "fee_max", "gas_max")}
    to = evm["contract"] or args[evm["to"]]
    value = args[evm["value"]] if evm["value"] else "0"
    return canonical(members | {"from": evm["sender"], "to": to, "data": data, "value": value})


def request_digest(tool: dict[str, Any], args: dict[str, Any], key: str, salt: str) -> str:
    """The digest of the exact provider request (docs/spec/requests.md)."""
    names = {arg["alias"]: arg["name"] for arg in tool["args"]}
    pairs = [(names.get(alias, alias), value) for alias, value in args.items()]
    method, url = tool["endpoint"].split(" ", 1)
    for alias in [alias for alias in args if "{" + alias + "}" in url]:
        [value] = [value for name, value in pairs if name == names[alias]]
        pairs = [pair for pair in pairs if pair[0] != names[alias]]
        url = url.replace("{" + alias + "}", quote(str(value), safe=""))
    headers, body = [*tool["headers"]], b""
    if tool["encoding"] == "query-v1":
        url += "?" + form(pairs) if pairs else ""
    elif tool["encoding"] == "form-v1":
        body = form([*pairs, ("metadata[countermark_key]", key)]).encode()
        headers += [["Content-Type", "application/x-www-form-urlencoded"], ["Idempotency-Key", key]]
    elif tool["encoding"] == "form-bare-v1":
        body = form(pairs).encode()
        headers += [["Content-Type", "application/x-www-form-urlencoded"], ["Idempotency-Key", key]]
    elif tool["encoding"] == "object-v1":
        body = canonical(nested(pairs))
        headers += [["Content-Type", "application/json"], ["Idempotency-Key", key]]
    elif tool["encoding"] == "mcp-v1":
        body = tools_call(url, pairs, key)
        headers += [["Content-Type", "application/json"], ["Idempotency-Key", key]]
    elif tool["encoding"] == "evm-v1":
        body = chain_call(tool["evm"], args)
        headers += [["Content-Type", "application/json"], ["Idempotency-Key", key]]
    else:
        body = canonical(sorted(pairs))
        headers += [["Content-Type", "application/json"], ["Idempotency-Key", key]]
    sealed = digest("body", salt.encode("ascii") + body)
    return doc_digest("request", {"method": method, "url": url, "headers": headers, "body": sealed})
