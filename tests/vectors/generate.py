"""Write the vectors: `python tests/vectors/generate.py OUTDIR`.

One file per attack, the honest packs, the trust files, and `expected.json`:

    {FILE: {"verdict": VERDICT | [VERDICTS], "code": CODE | [CODES] | null, "first_bad_seq": seq | null,
            "trust": TRUST FILE}}

A code without a dot stands for every code of its step. Of several codes a verifier must report at least one. Where the
specification does not determine the first bad position, `first_bad_seq` is left out. The same files come out on every
machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cedarpy
import insider_actions
import insider_anchors
import insider_ap2
import insider_arguments
import insider_called
import insider_callers
import insider_downgrades
import insider_effects
import insider_erasures
import insider_events
import insider_extracts
import insider_flow_extracts
import insider_hindsight
import insider_keys
import insider_ladders
import insider_lanes
import insider_monitor
import insider_outputs
import insider_paths
import insider_payees
import insider_people
import insider_policy
import insider_records
import insider_replays
import insider_rules
import insider_sealed
import insider_signed
import insider_steps
import insider_time
import insider_witnesses
import insider_workflows
import outsider_log
import outsider_pack
from build import doc_digest, head_of
from bundle import LEAN
from cases import CASES, UNSET, Case, canonical_trust, tiny_trust, trust
from lies import ATTACKS, Attack, history
from scribe import Story
from story import opened, pack_of, pay, restarts, small, whole
from story_order import BOTH_KEYS, booked, refused, rotated
from story_wide import observed, voided, wide

# Importing these modules registers their attacks.
ATTACKERS = (
    insider_actions,
    insider_anchors,
    insider_ap2,
    insider_arguments,
    insider_called,
    insider_callers,
    insider_downgrades,
    insider_events,
    insider_extracts,
    insider_flow_extracts,
    insider_erasures,
    insider_effects,
    insider_hindsight,
    insider_keys,
    insider_ladders,
    insider_lanes,
    insider_monitor,
    insider_outputs,
    insider_payees,
    insider_paths,
    insider_people,
    insider_policy,
    insider_records,
    insider_replays,
    insider_rules,
    insider_sealed,
    insider_signed,
    insider_steps,
    insider_time,
    insider_witnesses,
    insider_workflows,
    outsider_log,
    outsider_pack,
)
HONEST: dict[str, Callable[[], Story]] = {
    "honest-ap2": insider_ap2.honest,
    "honest-approvals-lapse": voided,
    "honest-booked-differently": booked,
    "honest-callers": insider_callers.callers,
    "honest-desks": insider_people.desks,
    "honest-enrolled": insider_people.enrolled,
    "honest-log-key-handed-over": insider_keys.rotated_log,
    "honest-enrolled-alone": insider_people.alone,
    "honest-erased": insider_erasures.erased,
    "honest-facts": wide,
    "honest-stood-in": insider_people.stood_in,
    "honest-hindsight": insider_hindsight.hindsight,
    "honest-reopened": insider_hindsight.reopened,
    "honest-ladders": insider_ladders.ladders,
    "honest-monitored": insider_monitor.monitored,
    "honest-observing": observed,
    "honest-outputs": insider_outputs.screened,
    "honest-payees": insider_payees.payees,
    "honest-paths": insider_paths.paths,
    "honest-people-with-new-keys": rotated,
    "honest-refused-and-revoked": refused,
    "honest-signed": insider_signed.signed,
    "honest-signed-throughout": insider_signed.all_signed,
    "honest-witnessed": insider_witnesses.witnessed,
    "honest-workflow": insider_workflows.followed,
    "honest-workflow-sealed": insider_sealed.sealed,
    "honest-workflow-sealed-and-erased": insider_sealed.erased,
    "honest-workflow-called-twice": insider_called.called_twice,
    "honest-workflow-cancelled-below": insider_called.cancelled_below,
    "honest-workflow-shared-events": insider_called.shared_events,
    "honest-workflow-forwarded": insider_events.forwarded,
    "honest-workflow-in-turn": insider_steps.in_turn,
    "honest-workflow-superseded": insider_called.superseded,
    "honest-superseded": insider_ladders.superseded,
    "honest-workflow-withdrawn": insider_called.withdrawn,
    "honest-workflow-changed": insider_workflows.changed_plan,
    "honest-workflow-delegated": insider_workflows.delegated,
}


def lone() -> dict[str, Callable[[], Case]]:
    """Vectors that no module of attacks has."""

    def restarted() -> Case:
        night = restarts()
        return Case(pack_of(night).write(), "verified", [], trust=trust([head_of(night.log.leaves)]))

    def open_intent() -> Case:
        story = opened("open-intent", LEAN)
        pay(story, 1)
        return Case(pack_of(story).write(), "incomplete", ["V11"], trust=trust([head_of(story.log.leaves)]))

    return {
        "honest": lambda: Case(pack_of(whole()).write(), "verified", []),
        "honest-all-withheld": lambda: Case(pack_of(small(), ()).write(), "verified", []),
        "honest-all-disclosed": lambda: Case(pack_of(small(), ("memo", "$reason")).write(), "verified", []),
        "honest-two-tile-levels": restarted,
        "open-intent": open_intent,
    }


def honest(make_story: Callable[[], Story]) -> Case:
    """An honest history whole, before an auditor who has its head."""
    story = make_story()
    keys = {rotated: BOTH_KEYS, insider_people.alone: insider_people.ALL_KEYS}.get(make_story)
    return Case(pack_of(story).write(), "verified", [], trust=trust([head_of(story.log.leaves)], people=keys))


def attacked(attack: Attack) -> Case:
    """A lie, before an auditor whose head was taken after it."""
    story, seq = history(attack)
    owned = trust([head_of(story.log.leaves, "taken from the falsified log")], people=attack.people)
    return Case(pack_of(story).write(), "refuted", attack.codes, seq, owned)


def makers() -> dict[str, Callable[[], Case]]:
    """What makes each vector, by its name."""
    found = lone()
    found |= {name: partial(honest, make_story) for name, make_story in HONEST.items()}
    found |= CASES
    return found | {attack.name: partial(attacked, attack) for attack in ATTACKS}


def one(name: str) -> Case:
    return makers()[name]()


def cases() -> dict[str, Case]:
    """Every vector by its name."""
    return {name: make() for name, make in makers().items()}


def check_policy(story: Story) -> None:
    """The policies are valid, and the dispositions that the story states by hand are theirs, decided strictly."""
    bundles = {doc_digest("bundle", bundle): bundle["compiled"] for bundle in story.bundles}
    for compiled in bundles.values():
        result = cedarpy.validate_policies(compiled["cedar"], compiled["schema"])
        if not result.validation_passed:
            raise SystemExit(f"the policies of {story.label} do not fit their schema: {result.errors}")
    for record in story.log.records:
        body = record["body"]
        if record["kind"] != "action.decided" or body["stage"] not in ("policy", "approval", "monitor"):
            continue
        rules = Rules(bundles[body["bundle"]])
        if body["stage"] == "approval":
            question = next(
                r["body"]
                for r in story.log.records
                if r["kind"] == "escalation.raised" and r["body"]["escalation"] == body["escalation"]
            )
            asked = sorted(p for policies in question["ladders"].values() for p in policies)
            changed = {
                "bundle": body["bundle"] != question["bundle"],
                "payee": any(
                    body["terms"]["payee"] in (r["body"]["details"]["payee"], r["body"]["was"], r["body"]["now"])
                    for r in story.log.records[question["decided"] : record["seq"]]
                    if r["kind"] == "payee.changed"
                ),
                "reasons": rules.cedar(body, [])[1] != asked,
                "request": body["request"] != question["request"],
            }
            stated, derived = ("void", body["reasons"]), ("void", sorted(name for name in changed if changed[name]))
        elif body["stage"] == "monitor":
            stated, derived = (body["code"], body["reasons"]), rules.monitored(body, record["at"])
        else:
            stated, derived = (body["disposition"], body["reasons"]), rules.strict(body, body["lifted"])
        if stated != derived:
            raise SystemExit(f"record {record['seq']}: stated {stated}, but Cedar says {derived}")


class Rules:
    """The policies of a bundle, asked as docs/spec/decision.md says."""

    def __init__(self, compiled: dict[str, Any]) -> None:
        self.compiled = compiled
        self.policies = {text.split('"')[1]: "@id(" + text for text in compiled["cedar"].split("@id(")[1:]}
        self.payees = {payee["id"] for payee in compiled["payees"]}

    def strict(self, body: dict[str, Any], lifted: list[str]) -> tuple[str, list[str]]:
        allowed, reasons = self.cedar(body, lifted)
        if allowed:
            return ("flag" if any("@flag(" in self.policies[name] for name in reasons) else "allow"), reasons
        if reasons and all("@escalate(" in self.policies[name] for name in reasons) and self.cedar(body, reasons)[0]:
            return "escalate", reasons
        return "deny", reasons

    def monitored(self, body: dict[str, Any], at: int) -> tuple[str, list[str]]:
        """What a tool that is only monitored would have done, or why it may do nothing more."""
        if at >= next(tool for tool in self.compiled["tools"] if tool["name"] == body["tool"])["monitor"]:
            return "monitor_over", []
        disposition, reasons = self.strict(body, [])
        hard = [name for name in reasons if name.startswith("limits.") and "@escalate(" not in self.policies[name]]
        return f"not waived: {hard}" if hard else f"would_{disposition}", reasons

    def context(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the tool's `reads` lists, as far as this action has it."""
        tool = next(tool for tool in self.compiled["tools"] if tool["name"] == body["tool"])
        found: dict[str, Any] = {}
        for member in tool["reads"]:
            group, _, name = member.rpartition(".")
            values = body[group] if group else body["terms"]
            if name in values:
                (found.setdefault(group, {}) if group else found)[name] = values[name]
        return found

    def cedar(self, body: dict[str, Any], without: list[str]) -> tuple[bool, list[str]]:
        """Cedar's answer without some policies, and the sorted ids that determined it; any error ends the program."""
        names = [name for name in self.policies if name not in without]
        payee = body["terms"]["payee"] or "$none"
        stand_in = "$unknown" if payee.startswith("p:") else "_registered"
        request = {
            "principal": {"type": "Agent", "id": body["agent"]},
            "action": {"type": "Action", "id": body["tool"]},
            "resource": {"type": "Payee", "id": payee if payee in (*self.payees, "$none") else stand_in},
            "context": self.context(body),
        }
        text = "".join(self.policies[name] for name in names)
        answer = cedarpy.is_authorized(request, text, self.compiled["entities"], self.compiled["schema"])
        if answer.diagnostics.errors:
            raise SystemExit(f"{body['call_id']}: {answer.diagnostics.errors}")
        # Cedar names policies by their position in the text.
        places = [int(reason.removeprefix("policy")) for reason in answer.diagnostics.reasons]
        return answer.allowed, sorted(names[place] for place in places)


def write(out: Path) -> None:
    for make_story in (whole, *HONEST.values()):
        check_policy(make_story())
    out.mkdir(parents=True, exist_ok=True)
    shared = {
        "trust.json": trust([head_of(small().log.leaves), head_of(whole().log.leaves)]),
        "trust-small.json": trust([head_of(small().log.leaves[:4]), head_of(small().log.leaves)]),
        "trust-tiny.json": tiny_trust(),
    }
    expected: dict[str, Any] = {}
    for name, vector in sorted(cases().items()):
        trust_name = "trust.json" if name == "honest" else "trust-small.json"
        if vector.trust is not None:
            same = [shared_name for shared_name, document in shared.items() if document == vector.trust]
            trust_name = same[0] if same else f"trust-{name}.json"
            (out / trust_name).write_bytes(canonical_trust(vector.trust))
        (out / f"{name}.zip").write_bytes(vector.data)
        row: dict[str, Any] = {"verdict": vector.verdict, "trust": trust_name}
        row["code"] = None if not vector.codes else vector.codes[0] if len(vector.codes) == 1 else vector.codes
        if vector.first_bad_seq is not UNSET:
            row["first_bad_seq"] = vector.first_bad_seq
        expected[f"{name}.zip"] = row
    for trust_name, document in shared.items():
        (out / trust_name).write_bytes(canonical_trust(document))
    (out / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python generate.py OUTDIR")
    write(Path(sys.argv[1]))
