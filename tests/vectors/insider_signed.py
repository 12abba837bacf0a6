"""Requests that agents signed (docs/spec/record.md, `request.signed`): an honest history, and insiders who bend it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from acts import Action
from build import DEPLOYMENT, Key, b64, doc_digest, seeded
from bundle import plain_bundle
from fields import payment
from lies import FOREIGN, lie, put
from scribe import Alter, Story
from story import TRANSFER, opened, pay, run_of

COVERED = ("@method", "@authority", "@path", "content-digest")
SIGNER, NEXT = Key("signs/payer"), Key("signs/payer/next")


def signed_bundle(**more: Any) -> dict[str, Any]:
    """The plain bundle, with two keys of the agent `payer`: the one in use, and the one that comes after it."""
    bundle = plain_bundle("signed")
    for agent in bundle["compiled"]["agents"]:
        if agent["id"] == "payer":
            agent.update({"keys": [SIGNER.text, NEXT.text]} | more)
    return bundle


def body_of(story: Story, number: int, amount: int = 10_000, **more: Any) -> str:
    """The request for a payment as an agent might write it: no order of members, white space as it likes."""
    tool = next(tool for tool in story.bundles[-1]["compiled"]["tools"] if tool["name"] == TRANSFER)
    names = {arg["alias"]: arg["name"] for arg in tool["args"]}
    args = {names[alias]: value for alias, value in payment(amount, "aurora", f"INV-{number}").items()}
    asked = {"run": run_of(story), "call_id": f"call-{number}", "tool": TRANSFER, "args": args, "reason": None}
    return json.dumps({**asked, "model": "model-1", "because": [], **more})


def sign(
    story: Story, number: int, body: str, key: Key = SIGNER, shown: bool = True, age_s: int = 0,
    covered: tuple[str, ...] = COVERED, tag: str = DEPLOYMENT, values: dict[str, str] | None = None,
    params: dict[str, str] | None = None, replayed: dict[str, Any] | None = None, alter: Alter | None = None,
) -> int:  # fmt: skip
    """Write the signature of a request; the decision about it must follow in the same commit.

    `values` and `params` replace what the components and the parameters really are.
    """
    values = {
        "@method": "POST", "@authority": "gate.example", "@path": "/v1/actions",
        "content-length": str(len(body.encode())),
        "content-digest": f"sha-256=:{b64(hashlib.sha256(body.encode()).digest())}:",
    } | (values or {})  # fmt: skip
    listed = " ".join(f'"{name}"' for name in covered)
    given = {
        "created": str(story.now // 1_000_000 + 1 - age_s), "keyid": f'"{key.text}"',
        "nonce": f'"{seeded(f"signature/{story.label}/{number}").hex()}"', "alg": '"ed25519"',
        "tag": f'"countermark/{tag}"',
    } | (params or {})  # fmt: skip
    signed = f"({listed})" + "".join(f";{name}={value}" for name, value in given.items())
    lines = [f'"{name}": {values[name]}' for name in covered]
    base = "\n".join([*lines, f'"@signature-params": {signed}'])
    run, agent = run_of(story), "payer"
    record = {
        "id": "act_" + doc_digest("action-id", [agent, run, f"call-{number}"])[7:39], "agent": agent, "run": run,
        "call_id": f"call-{number}", "key": key.text, "covered": [[name, values[name]] for name in covered],
        "params": signed, "sig": b64(key.private.sign(base.encode())), "body": body if shown else None,
    }  # fmt: skip
    record |= replayed or {}
    if alter is not None:
        alter(record)
    seq = story.add("request.signed", f"agent:{agent}", story.streams(agent, run), record)
    story.now -= 1_000_000
    return seq


def pay_signed(story: Story, number: int, amount: int = 10_000, **how: Any) -> Action:
    sign(story, number, how.pop("body", None) or body_of(story, number, amount), **how)
    return pay(story, number, amount)


def signed() -> Story:
    """Payments asked for under either key, one of them sent where its body means something else, and one unsigned."""
    story = opened("signed", bundle=signed_bundle())
    story.settle(pay_signed(story, 1))
    story.settle(pay_signed(story, 2, 7_000, key=NEXT, params={"expires": str(story.now // 1_000_000 + 2)}))
    elsewhere = {"@path": "/bank/v1/transfers"}
    story.settle(pay_signed(story, 3, 8_000, shown=False, covered=(*COVERED, "content-length"), values=elsewhere))
    story.settle(pay(story, 4))
    return story


def all_signed() -> Story:
    """Every action was asked for by its agent's own signature."""
    story = opened("all-signed", bundle=signed_bundle())
    story.settle(pay_signed(story, 1))
    return story


def _lie(story: Story, **how: Any) -> int:
    return pay_signed(story, 1, **how).seq - 1


@lie("V10.request", bundle=signed_bundle())
def request_signed_with_a_foreign_key(story: Story) -> int:
    return _lie(story, key=FOREIGN)


@lie("V10.request", bundle=signed_bundle())
def request_signed_for_another_amount(story: Story) -> int:
    return _lie(story, body=body_of(story, 1, 9_000))


@lie("V10.request", bundle=signed_bundle())
def request_body_that_was_not_signed(story: Story) -> int:
    return _lie(story, body=body_of(story, 1, 9_000), alter=put("body", value=body_of(story, 1)))


@lie("V10.request", bundle=signed_bundle())
def request_signature_of_an_hour_ago(story: Story) -> int:
    return _lie(story, age_s=3_600)


@lie("V10.request", bundle=signed_bundle())
def request_signed_for_another_deployment(story: Story) -> int:
    return _lie(story, tag="umbra")


@lie("V10.request", bundle=signed_bundle())
def request_signed_without_its_body(story: Story) -> int:
    return _lie(story, covered=("@method", "@authority", "@path"))


@lie("V10.request", bundle=signed_bundle())
def request_signature_used_twice(story: Story) -> int:
    story.settle(pay_signed(story, 1))
    before = next(record["body"] for record in story.log.records if record["kind"] == "request.signed")
    again = {name: before[name] for name in ("covered", "params", "sig")} | {"body": None}
    return pay_signed(story, 2, replayed=again).seq - 1


@lie("V11.escalation", bundle=signed_bundle())
def request_signed_yet_never_decided(story: Story) -> int:
    sign(story, 1, body_of(story, 1))
    return story.settle(pay(story, 2)) - 1


@lie("V09.bundle", bundle=signed_bundle(keys=[]))
def agent_with_an_empty_list_of_keys(story: Story) -> int:
    return 1


@lie("V10.request", bundle=signed_bundle())
def request_signed_for_another_run(story: Story) -> int:
    # The agent asked in a run under a narrow mandate; the insider decides it in the one with the wide mandate.
    return _lie(story, body=body_of(story, 1, run=story.run("payer", story.grant("payer", [[1, None]]))))


@lie("V10.request", bundle=signed_bundle())
def request_signed_that_names_no_run(story: Story) -> int:
    return _lie(story, body=body_of(story, 1, run=None))


@lie("V10.request", bundle=signed_bundle())
def request_signed_for_another_reason(story: Story) -> int:
    return _lie(story, body=body_of(story, 1, reason="the second half"))


@lie("V10.request", bundle=signed_bundle())
def request_signed_on_other_grounds(story: Story) -> int:
    return _lie(story, body=body_of(story, 1, because=["act_" + "0" * 32]))


@lie("V10.request", bundle=signed_bundle())
def request_signed_with_a_member_twice(story: Story) -> int:
    # A reader that takes the last of two sees what was decided; the one that the agent used took the first.
    return _lie(story, body='{"model": "model-0", ' + body_of(story, 1)[1:])


@lie("V10.request", bundle=signed_bundle())
def request_signed_and_its_body_left_out(story: Story) -> int:
    # With the body gone, nothing says any more that the agent asked for a tenth of this.
    return _lie(story, body=body_of(story, 1, 1_000), shown=False, covered=(*COVERED, "content-length"))


@lie("V10.request", bundle=signed_bundle())
def request_signed_elsewhere_yet_read_as_an_action(story: Story) -> int:
    return _lie(story, values={"@path": "/v1/runs"})


@lie("V10.request", bundle=signed_bundle())
def request_signed_with_a_line_break_in_a_value(story: Story) -> int:
    return _lie(story, values={"@authority": 'gate.example\n"@query": ?wait=decision'})


@lie("V10.request", bundle=signed_bundle())
def request_signed_with_a_nonce_that_could_be_guessed(story: Story) -> int:
    return _lie(story, params={"nonce": '"1"'})


@lie("V10.request", bundle=signed_bundle())
def request_signed_by_another_algorithm(story: Story) -> int:
    return _lie(story, params={"alg": '"hmac-sha256"'})


@lie("V10.request", bundle=signed_bundle())
def request_signed_under_the_name_of_another_key(story: Story) -> int:
    return _lie(story, params={"keyid": f'"{NEXT.text}"'})


@lie("V10.request", bundle=signed_bundle())
def request_signed_with_a_parameter_that_nobody_knows(story: Story) -> int:
    return _lie(story, params={"req": "1"})


@lie("V10.request", bundle=signed_bundle())
def request_signed_and_expired_when_it_was_decided(story: Story) -> int:
    # The agent let its request stand for less time than a gate takes it for; the insider kept it a second too long.
    return _lie(story, params={"expires": str(story.now // 1_000_000 + 1)})
