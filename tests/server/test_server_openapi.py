"""``/openapi.json`` says exactly what the server does: every operation is used, and every answer is held against it."""

from __future__ import annotations

import hmac
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bypass"))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from face import Answer
from siege import ACME, AGENT, ASK, REFUND, TOOL, Siege, args_for, escalation_of, refund_args, signed_answer, twin_for
from soft_passkey import SoftPasskey

from countermark.authority import clear, grant, load_private, revoke, sign_absence, sign_enrolment, sign_removal
from countermark.model.canon import canon
from countermark.model.clock import US, SystemClock
from countermark.model.digest import ENROLMENT_PROOF
from countermark.wiring.init import mandate_document

SCHEMATHESIS = "schemathesis==4.32.5"
HOOKS = Path(__file__).resolve().parent
WAIT_S = 900
EXAMPLES = "100" if os.environ.get("COUNTERMARK_CASES") == "all" else "30"  # of each operation and phase
# Which arguments a tool takes is not the description's to say but the policy's: a tool that exists refuses others.
BY_POLICY = """
[[operations]]
include-name = "POST {path}"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 429, "5xx"]
"""
# What no generator of bad requests expects: they are ours for what is too long or too slow to be one.
REFUSALS = [400, 401, 403, 404, 405, 406, 408, 409, 413, 414, 415, 422, 428, 429, 431, "5xx"]


class Held:
    """A siege whose every exchange is held against its own description."""

    def __init__(self, siege: Siege) -> None:
        self.siege = siege
        self.doc: dict[str, Any] = siege.ask("GET", "/openapi.json").json
        self.done: set[tuple[str, str, int]] = set()

    def operation(self, method: str, target: str) -> tuple[str, dict[str, Any]]:
        """The path of the document that a target is of, and what stands there."""
        path = target.partition("?")[0]
        for pattern, found in self.doc["paths"].items():
            form = re.sub(r"\\\{[a-z]+\\\}", "[^/]+" if "path" not in pattern else ".+", re.escape(pattern))
            if re.fullmatch(form, path) and method.lower() in found:
                return pattern, found[method.lower()]
        raise AssertionError(f"{method} {path} is not described")

    def fits(self, schema: Any, value: object) -> None:
        Draft202012Validator({**schema, "components": self.doc["components"]}).validate(value)

    def ask(
        self, method: str, target: str, body: Any = None, *, token: str | None = None, person: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """One exchange; what is asked here is valid, so it must fit too."""
        pattern, operation = self.operation(method, target)
        if body is not None:
            self.fits(operation["requestBody"]["content"]["application/json"]["schema"], body)
        raw = b"" if body is None else json.dumps(body).encode()
        answer = (
            self.siege.person_asks(method, target, raw) if person
            else self.siege.ask(method, target, body, headers, token=token)
        )  # fmt: skip
        described = operation["responses"][str(answer.status)]["content"]
        kind = answer.headers["content-type"]
        assert kind in described, (target, kind)
        if kind.endswith("json"):
            self.fits(described[kind]["schema"], answer.json)
        self.done.add((method, pattern, answer.status))
        return answer


SHOP = """
[workflows.sources.shop]
kind = "webhook"
scheme = "github"
secret = "env:TEST_SHOP_SECRET"
event = "/id"
"""


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    monkeypatch.setenv("TEST_SHOP_SECRET", "shop")
    with twin_for(tmp_path / "twin") as twin:
        siege = Siege(tmp_path, twin, SHOP)
        try:
            yield Held(siege)
        finally:
            assert siege.stop() == 0


def _agents_do(held: Held) -> str:
    """Everything that an agent does. Returns the escalation that waits."""
    run = held.ask("POST", "/v1/runs", {"purpose": "invoices"}).json["run"]
    asked = {"call_id": "1", "tool": TOOL, "args": args_for("O-1"), "reason": "due\nnow", "model": "m", "trace": None}
    paid = held.ask("POST", "/v1/actions?wait=outcome", {**asked, "run": run}).json
    for part in ("", "/receipt", "/explanation"):
        held.ask("GET", f"/v1/actions/{paid['action']}{part}")
    because = {"call_id": "2", "tool": TOOL, "args": args_for("O-2", 10**9), "because": [paid["action"]]}
    assert held.ask("POST", "/v1/actions", because).status == 403
    for ending, body in (
        ("conflict", {**asked, "run": run, "args": args_for("O-3")}),
        ("no tool", {**asked, "tool": "x"}),
    ):
        assert held.ask("POST", "/v1/actions", body).status in (404, 409), ending
    parked = held.ask("POST", "/v1/actions", {"call_id": "4", "tool": TOOL, "args": args_for("O-4", ASK)})
    assert parked.status == 202
    for part in ("", "/receipt", "/explanation"):
        held.ask("GET", f"/v1/actions/{parked.json['action']}{part}")
    admitted = held.ask("POST", "/v1/admissions", {"call_id": "5", "tool": REFUND, "args": refund_args("O-5")})
    outcome = {"outcome": "confirmed", "ref": "r-1", "output": {"receipt": "r-1", "left": 3, "unknown.one": True}}
    held.ask("POST", f"/v1/actions/{admitted.json['action']}/outcome", outcome)
    assert (
        held.ask("POST", "/v1/admissions", {"call_id": "6", "tool": REFUND, "args": refund_args(6, 10**9)}).status
        == 403
    )
    for _ in range(2):  # whoever lost the answer asks again
        assert held.ask("POST", f"/v1/runs/{run}/end", {"reason": "over"}).json["open"] is False
    held.ask("GET", f"/v1/runs/{run}")
    assert held.ask("POST", "/v1/runs", {}, token="cmk_wrong").status == 401
    return escalation_of(parked)


def _people_do(held: Held, escalation: str) -> None:
    """Everything that people do."""
    made, treasurer = held.siege.made, load_private(held.siege.made.people["treasurer"])
    (waits,) = held.ask("GET", "/v1/escalations?limit=5", person=True).json["escalations"]
    held.ask("POST", f"/v1/escalations/{escalation}/answers", signed_answer(made, waits), token="")
    now = SystemClock().now_us()
    plain = mandate_document(made.deployment, "treasurer", AGENT, not_before=now - US, not_after=now + 3_600 * US)
    digest = held.ask("POST", "/v1/mandates", grant(plain, treasurer), token="").json["mandate"]
    order = {"deployment": made.deployment, "person": "treasurer", "reason": "no longer"}
    held.ask("POST", f"/v1/mandates/{digest}/revocation", revoke({**order, "mandate": digest}, treasurer), token="")
    kill = held.ask("POST", "/v1/kills", {"kind": "payee", "value": "acme-paper"}, person=True).json["kill"]
    held.ask("POST", f"/v1/kills/{kill}/clearance", clear({**order, "kill": kill}, treasurer), token="")
    _keys_of_people(held, treasurer)


def _keys_of_people(held: Held, private: Ed25519PrivateKey) -> None:
    """A passkey is offered, fetched, enrolled, removed; and its owner is away."""
    phone = SoftPasskey(7)
    asked = {"person": "treasurer", "key": phone.text, "label": "phone"}
    document = held.ask("POST", "/v1/people/drafts", asked, token="").json["enrolment"]
    proof = phone.sign(ENROLMENT_PROOF, canon(document))
    code = held.ask("POST", "/v1/people/offers", {"enrolment": document, "proof": proof}, token="").json["code"]
    offer = held.ask("GET", f"/v1/people/offers/{code}", person=True).json
    signed = [sign_enrolment(offer["enrolment"], "treasurer", private)]
    body = {"enrolment": offer["enrolment"], "proof": offer["proof"], "signed": signed}
    held.ask("POST", "/v1/people/keys", body, token="")
    assert len(held.ask("GET", "/v1/people", person=True).json["people"]) == 2
    order = {"v": 1, "deployment": held.siege.made.deployment, "person": "treasurer"}
    removal = {**order, "key": phone.text, "by": "treasurer", "reason": "lost"}
    held.ask("POST", "/v1/people/keys/removals", sign_removal(removal, private), token="")
    now = SystemClock().now_us()
    absence = {**order, "stands_in": "controller", "from": now, "until": now + 9 * US}
    signed = [sign_absence(absence, "treasurer", private)]
    held.ask("POST", "/v1/people/absences", {"absence": absence, "signed": signed}, token="")


def _a_source_does(held: Held) -> None:
    """An event is delivered, with its signature and without; another one has its identity."""
    for body, sign, status in (({"id": 1}, True, 200), ({"id": 1}, False, 401), ({"id": 1, "more": 1}, True, 409)):
        mac = hmac.digest(b"shop", json.dumps(body).encode(), "sha256").hex() if sign else "0" * 64
        answer = held.ask("POST", "/hooks/shop", body, token="", headers={"x-hub-signature-256": "sha256=" + mac})
        assert answer.status == status


def test_every_operation_answers_as_it_is_described(held: Held) -> None:
    """Each one succeeds once; what went in and what came out fit their schemas, statuses and media types."""
    _people_do(held, _agents_do(held))
    _a_source_does(held)
    for target in ("/log/checkpoint", "/log/tile/0/000.p/1", "/metrics", "/healthz", "/openapi.json"):
        held.ask("GET", target)
    described = {(method.upper(), path) for path, found in held.doc["paths"].items() for method in found}
    assert described == {(method, path) for method, path, status in held.done if status < 300}


@pytest.mark.slow
def test_the_schemas_are_strict_enough_to_fail(held: Held) -> None:
    """An answer with a member too many, one too few, or of another kind does not fit: the test above can fail."""
    paid = held.siege.act(args_for("O-9")).json
    schema = {"$ref": "#/components/schemas/Result"}
    held.fits(schema, paid)
    for wrong in ({**paid, "more": 1}, {k: v for k, v in paid.items() if k != "code"}, {**paid, "status": "fine"}):
        assert not Draft202012Validator({**schema, "components": held.doc["components"]}).is_valid(wrong)


@pytest.mark.slow
def test_schemathesis_finds_nothing(held: Held, tmp_path: Path) -> None:
    """A foreign generator, with all of its checks, in an environment of its own: no request breaks the description."""
    uv = shutil.which("uv")
    if (
        uv is None
        or subprocess.run([uv, "tool", "run", "--from", SCHEMATHESIS, "st", "--version"], check=False).returncode
    ):
        pytest.skip(f"needs uv: {SCHEMATHESIS}")
    siege = held.siege
    run = siege.ask("POST", "/v1/runs", {}).json["run"]
    paid = siege.act(args_for("O-7", destination=ACME), run=run).json["action"]
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f'hooks = "openapi_hooks"\n[parameters]\n"path.id" = "{paid}"\n"path.run" = "{run}"\n'
        f"[checks.negative_data_rejection]\nexpected-statuses = {json.dumps(REFUSALS)}\n"
        + "".join(BY_POLICY.format(path=path) for path in ("/v1/actions", "/v1/admissions", "/hooks/{source}"))
    )
    found = subprocess.run(
        [
            uv, "tool", "run", "--from", SCHEMATHESIS, "st", "--config-file", str(config), "run",
            siege.url + "/openapi.json", "--header", f"Authorization: Bearer {siege.token}", "--checks", "all",
            "--max-examples", EXAMPLES, "--seed", os.environ.get("COUNTERMARK_SEED", "1"), "--no-color",
            "--suppress-health-check", "all",
        ],
        env={**os.environ, "PYTHONPATH": str(HOOKS)}, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-8_000:] + found.stderr[-2_000:]
    assert "/openapi.json" in found.stdout
    assert siege.ask("GET", "/healthz").status == 200
