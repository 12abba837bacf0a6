"""Write the vectors: `python tests/vectors/generate.py OUTDIR`.

One file per attack, the honest packs, the trust files, and `expected.json`:

    {FILE: {"verdict", "code": CODE | [CODES] | null, "first_bad_seq": seq | null, "trust": TRUST FILE}}

A code without a dot stands for every code of its step. Of several codes a verifier must report at least one. Where the
specification does not determine the first bad position, `first_bad_seq` is left out. The same files come out on every
machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cedarpy
import insider_actions
import insider_records
import outsider_log
import outsider_pack
from build import head_of
from bundle import CEDAR, ENTITIES, LEAN, LIMITS, PAYEES, TOOLS, schema_of
from cases import CASES, UNSET, Case, canonical_trust, tiny_trust, trust
from lies import ATTACKS, history
from scribe import Story
from story import opened, pack_of, pay, restarts, small, whole
from story_wide import voided, wide

# Importing these modules registers their attacks.
ATTACKERS = (insider_actions, insider_records, outsider_log, outsider_pack)
CLASS = {tool["name"]: tool["class"] for tool in TOOLS}
SCHEMA = schema_of(list(CLASS))
LIFTABLE = {"ask-board": "board", "ask-treasury": "treasury"}


def cases() -> dict[str, Case]:
    """Every vector by its name."""
    day, night = whole(), restarts()
    night_trust = trust([head_of(night.log.leaves)])
    found = {
        "honest": Case(pack_of(day).write(), "verified", []),
        "honest-all-withheld": Case(pack_of(small(), ()).write(), "verified", []),
        "honest-all-disclosed": Case(pack_of(small(), ("memo", "$reason")).write(), "verified", []),
        "honest-two-tile-levels": Case(pack_of(night).write(), "verified", [], trust=night_trust),
    }
    open_intent = opened("open-intent", LEAN)
    pay(open_intent, 1)
    found["open-intent"] = Case(
        pack_of(open_intent).write(), "incomplete", ["V11"], trust=trust([head_of(open_intent.log.leaves)])
    )
    for name, story in (("honest-facts", wide()), ("honest-approvals-lapse", voided())):
        found[name] = Case(pack_of(story).write(), "verified", [], trust=trust([head_of(story.log.leaves)]))
    for name, make in CASES.items():
        found[name] = make()
    for attack in ATTACKS:
        story, seq = history(attack)
        owned = trust([head_of(story.log.leaves, "taken from the falsified log")])
        found[attack.name] = Case(pack_of(story).write(), "refuted", attack.codes, seq, owned)
    return found


def check_policy(story: Story) -> None:
    """The policies are valid, and the dispositions that the story states by hand are theirs, decided strictly."""
    if not cedarpy.validate_policies(CEDAR, SCHEMA).validation_passed:
        raise SystemExit("the policies do not fit their schema")
    for record in story.log.records:
        body = record["body"]
        if record["kind"] != "action.decided" or body["stage"] not in ("policy", "approval"):
            continue
        lifted = body["lifted"]
        if body["stage"] == "approval":
            question = next(
                r["body"]
                for r in story.log.records
                if r["kind"] == "escalation.raised" and r["body"]["escalation"] == body["escalation"]
            )
            asked = sorted(p for policies in question["ladders"].values() for p in policies)
            _, reasons = cedar(body, [])
            stated, derived = ("void", body["reasons"]), ("void", ["reasons"] if reasons != asked else [])
        else:
            stated = (body["disposition"], body["reasons"])
            derived = strict(body, lifted)
        if stated != derived:
            raise SystemExit(f"record {record['seq']}: stated {stated}, but Cedar says {derived}")


def strict(body: dict[str, Any], lifted: list[str]) -> tuple[str, list[str]]:
    allowed, reasons = cedar(body, lifted)
    if allowed:
        return ("flag" if "pay-large" in reasons else "allow"), reasons
    if reasons and set(reasons) <= set(LIFTABLE) and cedar(body, reasons)[0]:
        return "escalate", reasons
    return "deny", reasons


def cedar(body: dict[str, Any], without: list[str]) -> tuple[bool, list[str]]:
    """Cedar's answer without some policies, and the sorted ids that determined it; any error ends the program."""
    policies = [p for p in CEDAR.split("@id(")[1:] if p.split('"')[1] not in without]
    payee = body["terms"]["payee"] or "$none"
    context = {"args": {k: v for k, v in body["args"].items() if not isinstance(v, dict)}}
    context |= {"facts": body["facts"], "limits": LIMITS}
    if CLASS[body["tool"]] == "money":
        context |= {"amount": body["terms"]["amount"], "currency": body["terms"]["currency"]}
    request = {
        "principal": {"type": "Agent", "id": body["agent"]},
        "action": {"type": "Action", "id": body["tool"]},
        "resource": {"type": "Payee", "id": payee if payee in (*PAYEES, "$none") else "$unknown"},
        "context": context,
    }
    answer = cedarpy.is_authorized(request, "".join("@id(" + p for p in policies), ENTITIES, SCHEMA)
    if answer.diagnostics.errors:
        raise SystemExit(f"{body['call_id']}: {answer.diagnostics.errors}")
    # Cedar names policies by their position in the text.
    names = [p.split('"')[1] for p in policies]
    return answer.allowed, sorted(names[int(reason.removeprefix("policy"))] for reason in answer.diagnostics.reasons)


def write(out: Path) -> None:
    check_policy(whole())
    check_policy(small())
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
