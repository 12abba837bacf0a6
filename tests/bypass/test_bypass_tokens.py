"""Agents' credentials: replayed, stolen, over, or used for more than they are for."""

from __future__ import annotations

import base64
import json
import os

import pytest
from siege import ACME, AGENT, REFUND, TOOL, Siege, args_for, refund_args

from countermark.authority import revoke_token
from countermark.model.clock import SystemClock
from countermark.wiring import TokenFile

SHOWN = "stripe.transfers.retrieve"


def run_of(siege: Siege, token: str | None = None) -> str:
    return str(siege.ask("POST", "/v1/runs", {"purpose": "bypass"}, token=token).json["run"])


def test_a_request_recorded_and_sent_again(siege: Siege) -> None:
    """Prevented: a whole request, its token and all, sent again word for word: the recorded answer comes, and nothing
    moves.
    """
    body = {"run": run_of(siege), "call_id": "replay", "tool": TOOL, "args": args_for("TOKEN-1")}
    first = siege.ask("POST", "/v1/actions", body)
    size = siege.size
    for _ in range(3):
        assert siege.ask("POST", "/v1/actions", body).json == first.json
    assert (siege.size, len(siege.paid("TOKEN-1"))) == (size, 1)


def test_a_stolen_token(siege: Siege) -> None:
    """Not covered: whoever holds a bearer token is its agent until it ends or is revoked; mandate, limits and scope
    bound what it pays, and signed requests or short-lived JWTs leave nothing to steal for long.
    """
    thief, name = siege.issued(tools=[TOOL])
    assert siege.act(args_for("TOKEN-2"), token=thief).json["status"] == "confirmed"
    assert siege.act(args_for("TOKEN-2-OVER", 2_500_001), token=thief).status == 403
    TokenFile(siege.root).change(lambda book: (revoke_token(book, name, SystemClock().now_us()), None))
    assert siege.act(args_for("TOKEN-2-LATE"), token=thief).status == 401
    assert siege.paid("TOKEN-2-OVER") + siege.paid("TOKEN-2-LATE") == []


def test_a_token_that_is_over(siege: Siege) -> None:
    """Prevented: an expired or a revoked token, or one whose time has not come, on every face; it leaves no record."""
    over, _ = siege.issued(ago_s=100, life_s=99)
    later, _ = siege.issued(ago_s=-3_600)
    revoked, name = siege.issued()
    TokenFile(siege.root).change(lambda book: (revoke_token(book, name, SystemClock().now_us()), None))
    size = siege.size
    for token in (over, later, revoked):
        assert siege.act(args_for("TOKEN-3"), token=token).status == 401
        assert siege.form(args_for("TOKEN-3"), token=token).status == 401
        assert siege.mcp(TOOL, {}, token=token).status == 401
        assert siege.ask("POST", "/v1/runs", {}, token=token).status == 401
    assert siege.size == size
    assert siege.paid("TOKEN-3") == []


def test_a_token_for_one_tool_on_every_face(siege: Siege) -> None:
    """Prevented: a token for one tool used for another one: as an action, an admission, a Stripe SDK's call, an MCP
    call, or to report an outcome.
    """
    token, _ = siege.issued(tools=[SHOWN])
    before = siege.moved
    assert siege.act(args_for("TOKEN-4"), token=token).code == "out_of_scope"
    assert siege.form(args_for("TOKEN-4"), token=token).status == 403
    body = {"call_id": "scope", "tool": TOOL, "args": args_for("TOKEN-4")}
    assert siege.ask("POST", "/v1/admissions", body, token=token).status in (400, 403)
    terms = {"amount": 1_000, "currency": "eur", "destination": ACME, "invoice": "TOKEN-4"}
    assert b"out_of_scope" in siege.mcp(TOOL, terms, token=token).body
    assert siege.moved == before


def test_a_token_for_one_run(siege: Siege) -> None:
    """Prevented: a token for one run that acts in another one, starts one, ends one, or names one on the Stripe face or
    over MCP.
    """
    mine, other = run_of(siege), run_of(siege)
    token, _ = siege.issued(run=mine)
    size = siege.moved
    assert siege.act(args_for("TOKEN-5"), token=token, run=other).code == "out_of_scope"
    assert siege.form(args_for("TOKEN-5"), token=token, **{"countermark-run": other}).status == 403
    terms = {"amount": 1_000, "currency": "eur", "destination": ACME, "invoice": "TOKEN-5"}
    assert b"out_of_scope" in siege.mcp(TOOL, terms, {"countermark/run": other}, token=token).body
    assert siege.ask("POST", "/v1/runs", {}, token=token).code == "out_of_scope"
    assert siege.ask("POST", f"/v1/runs/{other}/end", {"reason": "x"}, token=token).code == "out_of_scope"
    assert siege.moved == size
    assert siege.act(args_for("TOKEN-5"), token=token).json["run"] == mine


def test_a_token_for_one_run_looks_at_another(siege: Siege) -> None:
    """Prevented: a token for one run that reads the actions, receipts and explanations of another run of its agent, or
    the run itself.
    """
    done = siege.act(args_for("TOKEN-6"), run=run_of(siege)).json
    token, _ = siege.issued(run=run_of(siege))
    action = f"/v1/actions/{done['action']}"
    for target in (action, action + "/receipt", action + "/explanation", f"/v1/runs/{done['run']}"):
        assert siege.ask("GET", target).status == 200, target
        answer = siege.ask("GET", target, token=token)
        assert answer.status in (403, 404), (target, answer.body)
        assert b"TOKEN-6" not in answer.body


def test_a_token_of_another_agent(siege: Siege) -> None:
    """Prevented: an agent that reads, repeats, ends or pays in what belongs to another agent, whose ids it knows."""
    done = siege.act(args_for("TOKEN-7"), run=run_of(siege), call_id="theirs").json
    token, _ = siege.issued("clerk")
    assert siege.ask("POST", "/v1/runs", {}, token=token).status == 201, "the other agent may act"
    action, run = f"/v1/actions/{done['action']}", f"/v1/runs/{done['run']}"
    for target in (action, action + "/receipt", action + "/explanation", run):
        answer = siege.ask("GET", target, token=token)
        assert answer.status in (403, 404), (target, answer.body)
    assert siege.act(args_for("TOKEN-7"), token=token, run=done["run"], call_id="theirs").status in (400, 403, 404)
    assert siege.ask("POST", run + "/end", {"reason": "x"}, token=token).status in (403, 404)
    report = {"outcome": "failed", "ref": "", "output": {}}
    assert siege.ask("POST", action + "/outcome", report, token=token).status in (403, 404)
    assert siege.ask("GET", run).json["open"] is True
    assert len(siege.paid("TOKEN-7")) == 1


def test_a_token_reports_what_is_not_its_own(siege: Siege) -> None:
    """Prevented: a token for other tools, for another run or of another agent that reports the outcome of an admitted
    action.
    """
    body = {"run": run_of(siege), "call_id": "report", "tool": REFUND, "args": refund_args("TOKEN-R")}
    admitted = siege.ask("POST", "/v1/admissions", body)
    assert (admitted.status, admitted.json["status"]) == (202, "pending"), admitted.body
    target = f"/v1/actions/{admitted.json['action']}"
    for token, _ in (siege.issued(tools=[TOOL]), siege.issued(run=run_of(siege)), siege.issued("clerk")):
        answer = siege.ask("POST", target + "/outcome", {"outcome": "confirmed"}, token=token)
        assert answer.status in (403, 404), answer.body
    assert siege.ask("GET", target).json["status"] == "pending"
    assert siege.ask("POST", target + "/outcome", {"outcome": "failed"}).json["status"] == "failed"


def credentials(token: str) -> list[tuple[str, dict[str, str]]]:
    basic = base64.b64encode(f"{token}:x".encode()).decode()
    return [
        (f"?access_token={token}", {}), (f"?token={token}", {}), ("", {"cookie": f"token={token}"}),
        ("", {"x-api-key": token}), ("", {"proxy-authorization": f"Bearer {token}"}), ("", {"authorization": token}),
        ("", {"authorization": f"Basic {basic}"}), ("", {"authorization": f"Bearer {token}, Bearer {token}"}),
        ("", {"authorization": f"Bearer\t{token}"}), ("", {"authorization": f"Bearer {token[:-1]}"}),
        ("", {"authorization": f"Bearer {token.upper()}"}), ("", {"x-forwarded-authorization": f"Bearer {token}"}),
        ("", {"x-forwarded-user": AGENT}), ("", {"x-remote-user": AGENT}), ("", {"authorization": "Bearer *"}),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(15))
def test_a_credential_in_another_place(siege: Siege, number: int) -> None:
    """Prevented: a good token in the address, a cookie, another header, with a password, twice or nearly right, and
    headers by which proxies name a user.
    """
    query, headers = credentials(siege.token)[number]
    body = {"call_id": "place-" + os.urandom(4).hex(), "tool": TOOL, "args": args_for("TOKEN-8")}
    answer = siege.ask("POST", "/v1/actions" + query, body, headers, token="")
    assert answer.status in (400, 401), answer.body
    assert siege.token not in answer.body.decode()
    assert siege.paid("TOKEN-8") == []


def test_guessing_leaves_nothing(siege: Siege) -> None:
    """Prevented: guessed tokens fill neither the log nor the memory, and each costs its connection."""
    size = siege.size
    for number in range(60):
        guess = "cmk_" + os.urandom(8).hex() + "_" + os.urandom(32).hex()
        if number % 3 == 0:
            answer = siege.ask("POST", "/v1/actions", {}, token=guess)
        else:
            answer = siege.form({}, token=guess) if number % 3 == 1 else siege.mcp(TOOL, {}, token=guess)
        assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert siege.size == size
    assert json.loads(siege.ask("GET", "/healthz", token="").body)["ready"] is True
