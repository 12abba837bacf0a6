"""Arguments in the path of a request (docs/spec/requests.md): an honest history, and insiders who bend such a path."""

from __future__ import annotations

from typing import Any

from acts import Action
from bundle import PERMIT, READ_POLICY, TOOLS, plain_bundle, rules
from cases import UNSET
from fields import request_digest
from lies import lie
from scribe import READ, Answer, Story
from story import CHECK, opened, pay, run_of

CAPTURE = "bank.holds.capture"
CAPTURED: Answer = ("allow", "policy", "allowed", ["capture"])
CAPTURE_POLICY = """\
@id("capture")
permit (principal, action in Action::"change", resource);
"""


def paths_bundle(**more: Any) -> dict[str, Any]:
    """A payment, a change and a read, of which the last two name their object in the path. `more` bends the change."""
    bundle = plain_bundle("paths")
    compiled = bundle["compiled"]
    [transfer] = compiled["tools"]
    check = next(tool for tool in TOOLS if tool["name"] == CHECK)
    of_hold = {"name": "hold", "type": "string", "class": "reference", "alias": "hold", "required": True}
    to_take = {"name": "amount_to_capture", "type": "integer", "class": "reference", "alias": "part", "required": False}
    rest = {"sensitive": False, "enum": [], "pattern": "", "minimum": None, "maximum": None, "chars_max": 200}
    capture = transfer | {
        "name": CAPTURE, "class": "change", "once_scope": CAPTURE, "once_per": ["hold"], "encoding": "form-bare-v1",
        "endpoint": "POST https://bank.example/v1/holds/{hold}/capture", "args": [to_take | rest, of_hold | rest],
    }  # fmt: skip
    tools = [
        check | {"endpoint": "GET https://bank.example/v1/accounts/{account}"},
        capture | more,
        transfer,
    ]
    payees = [row["id"] for row in compiled["payees"]]
    compiled |= rules(tools, PERMIT + CAPTURE_POLICY + READ_POLICY, [], {}, {}, payees)
    return bundle


def capture(story: Story, hold: str, number: int = 1, **more: Any) -> Action:
    return story.decide(run_of(story), f"capture-{number}", CAPTURE, {"hold": hold, "part": 700}, CAPTURED, **more)


def paths() -> Story:
    """A payment, a capture in part of a hold with a name that must be encoded, a capture of another, and a read."""
    story = opened("paths", bundle=paths_bundle())
    story.settle(pay(story, 1, 1_000))
    story.settle(capture(story, "hold 1+x"))
    story.settle(story.decide(run_of(story), "capture-all", CAPTURE, {"hold": "hold-2"}, CAPTURED), "failed")
    story.settle(story.decide(run_of(story), "check", CHECK, {"account": "acct..aurora"}, READ))
    return story


def _sent_elsewhere(story: Story, hold: str) -> Any:
    def alter(body: dict[str, Any]) -> None:
        draft = story.tool(CAPTURE)
        body["request"] = request_digest(draft, {"hold": hold, "part": 700}, body["key"], body["salt"])

    return alter


@lie("V12.request", bundle=paths_bundle())
def path_names_another_object(story: Story) -> int:
    # The record says which hold was captured; the request went to another one.
    return capture(story, "hold-1", alter=_sent_elsewhere(story, "hold-2")).seq


@lie("V12.request", bundle=paths_bundle())
def path_climbs_out_of_its_place(story: Story) -> int:
    # Percent-encoded as the rules say; yet servers exist that read %2F as a further segment.
    return capture(story, "../refunds/all").seq


@lie("V12.request", bundle=paths_bundle())
def path_of_dots(story: Story) -> int:
    return capture(story, "..").seq


@lie("V12.request", bundle=paths_bundle(encoding="form-v1"))
def bare_form_where_the_key_belongs(story: Story) -> int:
    # Without our key in the body nobody finds the effect at the provider again.
    def alter(body: dict[str, Any]) -> None:
        draft = story.tool(CAPTURE) | {"encoding": "form-bare-v1"}
        body["request"] = request_digest(draft, {"hold": "hold-1", "part": 700}, body["key"], body["salt"])

    return capture(story, "hold-1", alter=alter).seq


def _paid(story: Story) -> Any:
    pay(story, 1)
    return UNSET


@lie("V09.bundle", bundle=paths_bundle(endpoint="POST https://bank.example/v1/holds/{part}/capture"))
def path_of_an_optional_argument(story: Story) -> Any:
    return _paid(story)


@lie("V09.bundle", bundle=paths_bundle(endpoint="POST https://bank.example/v1/holds/{hold}/{hold}"))
def path_with_an_argument_twice(story: Story) -> Any:
    return _paid(story)


@lie("V09.bundle", bundle=paths_bundle(endpoint="POST https://{hold}.example/v1/capture"))
def host_from_an_argument(story: Story) -> Any:
    # Whoever chooses the hold chooses where the credential goes.
    return _paid(story)
