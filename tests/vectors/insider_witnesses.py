"""Insiders who pretend that witnesses saw the log (V08, V09, V11, V14), and an honest day under a witness policy."""

from __future__ import annotations

import base64
from typing import Any

from build import ORIGIN, Key, cosignature_line, head_of, log_line, note_text, root_of, verifier_key
from bundle import plain_bundle
from cases import Case, case, trust
from lies import lie, put
from scribe import Story
from story import opened, pack_of, pay

WITNESSES = ("north", "south", "acme/own")  # operators; the last is the deployment's own
STALE_S = 60
UNTIL_S = 120  # after which a transfer may not start any more
STALE = ("deny", "witness", "witness_stale", [])


def key_of(name: str) -> Key:
    return Key(f"witness/{name}")


def vkey_of(name: str) -> str:
    return verifier_key(f"{name.split('/', maxsplit=1)[0]}.example/log", key_of(name), 4)


def policy_text(*names: str, needed: str = "2", quorum: str = "enough") -> str:
    """A C2SP tlog-policy of these witnesses."""
    lines = [f"witness {name} {vkey_of(name)} https://{name.partition('/')[0]}.example/" for name in names]
    return "\n".join(
        ("# who sees our log", "", *lines, f"group enough {needed} {' '.join(names)}", f"quorum {quorum}", "")
    )


def wanting(text: str = "", before: bool = True, stale_s: int = STALE_S) -> dict[str, Any]:
    """The plain bundle under a witness policy; `before`: transfers wait for the witnesses."""
    bundle = plain_bundle()
    compiled = bundle["compiled"]
    compiled["witness"] = {"policy": text or policy_text(*WITNESSES), "stale_after_s": stale_s}
    if before:
        compiled["tools"] = [tool | {"witness": "before"} for tool in compiled["tools"]]
    return bundle


WANTING: dict[str, Any] = {"bundle": wanting()}
STALE_ONLY: dict[str, Any] = {"bundle": wanting(before=False)}


def note_of(story: Story, size: int, names: tuple[str, ...], at: int, root: bytes | None = None) -> str:
    """The head of `size`, cosigned."""
    text = note_text(size, root_of(story.log.leaves[:size]) if root is None else root)
    lines = [cosignature_line(text, key_of(name), vkey_of(name).partition("+")[0], at // 1_000_000) for name in names]
    return (text + b"\n" + log_line(text, story.log_key, ORIGIN) + b"".join(lines)).decode()


def saw(
    story: Story, names: tuple[str, ...] = ("north", "south"), size: int = 0, alter: Any = None, at: int = 0
) -> int:
    """Witnesses see the head of `size` (default: all there is), and the record says so."""
    size = size or len(story.log.leaves)
    now = story.now + 500_000
    body = {
        "size": size,
        "root": root_of(story.log.leaves[:size]).hex(),
        "note": note_of(story, size, names, at or now),
        "asked": now,
        "answered": now + 200_000,
    }
    if alter is not None:
        alter(body)
    return story.add("head.witnessed", "gate", [], body)


def cosigned_again(note: str, size: int, root: bytes, story: Story) -> str:
    """The note of another head with the lines of the same witnesses, of the same times."""
    text = note_text(size, root)
    lines = [log_line(text, story.log_key, ORIGIN)]
    names = {vkey_of(name).partition("+")[0]: name for name in WITNESSES}
    for line in note.partition("\n\n")[2].splitlines():
        _, name, blob = line.split(" ")
        if name in names:
            at = int.from_bytes(base64.b64decode(blob)[4:12], "big")
            lines.append(cosignature_line(text, key_of(names[name]), name, at))
    return (text + b"\n" + b"".join(lines)).decode()


def not_sent(story: Story, code: str = "not_witnessed") -> Any:
    """Falsifies an outcome `failed` into one of what was never sent."""

    def alter(body: dict[str, Any]) -> None:
        body |= {"code": code, "http_status": 0, "response": "", "attempts": 0}
        body["request_id"] = "killed" if code == "not_sent" else ""

    return alter


def witnessed() -> Story:
    """Seen before sent; one that nobody saw in time; one that was stopped; money denied while nobody answers."""
    story = opened("witnessed", **WANTING)
    saw(story)
    first = pay(story, 1)
    saw(story, WITNESSES)
    story.settle(first)
    second = pay(story, 2)
    story.wait(UNTIL_S)
    story.settle(second, "failed", alter=not_sent(story))
    pay(story, 3, answer=STALE)  # type: ignore[arg-type]
    saw(story)
    third = pay(story, 4)
    story.settle(third, "failed", alter=not_sent(story, "not_sent"))
    story.activate(wanting(before=False, stale_s=600))
    saw(story)
    story.wait(300)
    story.settle(pay(story, 5))
    saw(story)
    return story


# --- what witnesses are said to have seen (V08) ---


@lie("V08.root", **WANTING)
def witnessed_root_of_another_log(story: Story) -> int:
    """The note of another log of the same size, as its own witnesses cosigned it."""
    size = len(story.log.leaves)
    other = bytes(32)
    note = note_of(story, size, ("north", "south"), story.now + 500_000, other)
    return saw(story, alter=lambda body: body.update(note=note, root=other.hex()))


@lie("V08.record", **WANTING)
def witnessed_note_for_another_size(story: Story) -> int:
    note = note_of(story, len(story.log.leaves) - 1, ("north", "south"), story.now + 500_000)
    return saw(story, alter=put("note", value=note))


@lie("V08.record", **WANTING)
def witnessed_by_the_operator_itself(story: Story) -> int:
    return saw(story, ("north", "acme/own"))


@lie("V08.record", **WANTING)
def witnessed_by_one_too_few(story: Story) -> int:
    return saw(story, ("south",))


@lie("V08.record", **WANTING)
def witnessed_quorum_of_an_old_day_replayed(story: Story) -> int:
    """The cosignatures are genuine, of this very head, and a day old: nobody answered now."""
    signed_at = story.now
    story.wait(86_400)
    return saw(story, at=signed_at)


@lie("V08.record", **WANTING)
def witnessed_smaller_head_after_a_larger(story: Story) -> int:
    saw(story)
    return saw(story, size=2)


@lie("V08.record", **WANTING)
def witnessed_head_told_twice(story: Story) -> int:
    size = len(story.log.leaves)
    saw(story, size=size)
    return saw(story, size=size)


@lie("V08.record", **WANTING)
def witnessed_answer_from_the_future(story: Story) -> int:
    return saw(story, alter=put("answered", value=story.now + 120_000_000))


@lie("V08.cosignature", **WANTING)
def witnessed_cosignature_of_another_head(story: Story) -> int:
    def alter(body: dict[str, Any]) -> None:
        text = note_text(2, root_of(story.log.leaves[:2]))
        foreign = cosignature_line(
            text, key_of("north"), vkey_of("north").partition("+")[0], body["asked"] // 1_000_000
        )
        body["note"] += foreign.decode()

    return saw(story, ("south",), alter=alter)


@lie("V08.record", **WANTING)
def witnessed_without_the_logs_own_line(story: Story) -> int:
    def alter(body: dict[str, Any]) -> None:
        head, _, tail = body["note"].partition("\n\n")
        body["note"] = head + "\n\n" + tail.partition("\n")[2]

    return saw(story, alter=alter)


@lie("V08.record")
def witnessed_where_no_policy_names_witnesses(story: Story) -> int:
    return saw(story)


@lie("V04", **WANTING)
def witnessed_with_another_member(story: Story) -> int:
    return saw(story, alter=put("by", value="north"))


# --- what waits for witnesses (V11, V14) ---


@lie("V14.decision", **STALE_ONLY)
def money_allowed_though_nobody_ever_saw_the_log(story: Story) -> int:
    return pay(story, 1).seq


@lie("V14.decision", **STALE_ONLY)
def money_allowed_though_the_last_answer_is_old(story: Story) -> int:
    saw(story)
    story.wait(STALE_S)
    return pay(story, 1).seq


@lie("V14.decision", **STALE_ONLY)
def money_denied_as_stale_though_witnesses_answered(story: Story) -> int:
    saw(story)
    return pay(story, 1, answer=STALE).seq  # type: ignore[arg-type]


@lie("V11.unwitnessed", **WANTING)
def effect_sent_before_witnesses_saw_its_intent(story: Story) -> int:
    saw(story)
    return story.settle(pay(story, 1))


@lie("V11.unwitnessed", **WANTING)
def effect_of_unknown_fate_that_nobody_had_seen(story: Story) -> int:
    saw(story)
    return story.settle(pay(story, 1), "unknown")


@lie("V11.unwitnessed", **WANTING)
def effect_sent_when_only_the_head_before_it_was_seen(story: Story) -> int:
    saw(story)
    action = pay(story, 1)
    saw(story, size=action.seq)
    return story.settle(action)


@lie("V11.outcome", **WANTING)
def not_witnessed_though_it_was_seen(story: Story) -> int:
    saw(story)
    action = pay(story, 1)
    saw(story)
    story.wait(UNTIL_S)
    return story.settle(action, "failed", alter=not_sent(story))


@lie("V11.outcome", **WANTING)
def not_witnessed_while_there_was_time(story: Story) -> int:
    saw(story)
    return story.settle(pay(story, 1), "failed", alter=not_sent(story))


@lie("V11.outcome", **STALE_ONLY)
def not_witnessed_of_a_tool_that_waits_for_nobody(story: Story) -> int:
    saw(story)
    action = pay(story, 1)
    story.wait(UNTIL_S)
    return story.settle(action, "failed", alter=not_sent(story))


# --- the policy (V09) ---


def _activated(text: str, **changes: Any) -> dict[str, Any]:
    bundle = wanting(text)
    bundle["compiled"]["witness"] |= changes
    return bundle


@lie("V09.bundle")
def witness_policy_that_the_operator_alone_satisfies(story: Story) -> int:
    return story.activate(
        _activated(policy_text("acme/own", "north", needed="any").replace("quorum enough", "quorum acme/own"))
    )


@lie("V09.bundle")
def witness_policy_that_asks_nobody(story: Story) -> int:
    return story.activate(_activated(policy_text("north", "south", quorum="none")))


@lie("V09.bundle")
def witness_policy_with_one_key_twice(story: Story) -> int:
    text = policy_text("north", "south")
    return story.activate(_activated(text.replace("group", f"witness east {vkey_of('north')}\ngroup")))


@lie("V09.bundle")
def witness_policy_whose_group_needs_more_than_it_has(story: Story) -> int:
    return story.activate(_activated(policy_text("north", "south", needed="3")))


@lie("V09.bundle")
def witness_policy_without_a_last_newline(story: Story) -> int:
    return story.activate(_activated(policy_text("north", "south").rstrip("\n")))


@lie("V09.bundle")
def witness_rule_that_is_never_stale(story: Story) -> int:
    return story.activate(_activated(policy_text("north", "south"), stale_after_s=0))


@lie("V09.bundle")
def tool_that_waits_for_witnesses_whom_nobody_named(story: Story) -> int:
    bundle = wanting()
    del bundle["compiled"]["witness"]
    return story.activate(bundle)


# --- what the auditor makes of it ---


def auditors(*names: str, quorum: int = 2) -> dict[str, Any]:
    keys = [{"key": vkey_of(name), "operator": name.partition("/")[0]} for name in names]
    return {"quorum": quorum, "keys": keys}


def _head_seen(story: Story, size: int, names: tuple[str, ...]) -> Any:
    """A pack of the first `size` records, whose head is the note that a record has of it."""
    cut = Story(story.label, story.log_key)
    cut.log.leaves = story.log.leaves[:size]
    cut.bundles = story.bundles[:1]
    pack = pack_of(cut)
    pack.members["log/checkpoint"] = note_of(story, size, names, story.now).encode()
    return pack.sealed()


def _morning() -> tuple[Story, int]:
    """A payment that was seen before it was sent, and the head that was seen after it."""
    story = opened("morning", **WANTING)
    saw(story)
    action = pay(story, 1)
    saw(story)
    story.settle(action)
    size = len(story.log.leaves)
    saw(story)
    return story, size


@case
def honest_newest_witnessed_head() -> Case:
    """Without any retained head: the auditor's own witnesses cosigned the head of the pack."""
    story, size = _morning()
    data = _head_seen(story, size, ("north", "south")).write()
    return Case(data, "verified", [], trust=trust([], witnesses=auditors("north", "south")))


@case
def witnesses_of_the_policy_are_not_the_auditors() -> Case:
    """The policy was swapped for one with witnesses of the insider's making: the auditor knows others."""
    story, size = _morning()
    data = _head_seen(story, size, ("north", "south")).write()
    return Case(data, "incomplete", ["V08.quorum"], None, trust([], witnesses=auditors("east", "west")))


@case
def records_later_than_the_witnessed_head() -> Case:
    """The log was seen up to a head of which its records tell; what came later nobody saw."""
    story, _ = _morning()
    shown = trust([], witnesses=auditors("north", "south"))
    return Case(pack_of(story).write(), "incomplete", ["V07.later", "V08.quorum"], None, shown)


@case
def log_rewritten_before_what_witnesses_saw() -> Case:
    """The amount of a payment is another one, everything after it is made anew, and the notes of the witnesses stay."""
    story = opened("morning", **WANTING)
    saw(story)
    first = dict(story.log.records[-1]["body"])
    rewritten = opened("morning-again", **WANTING)
    seq = saw(rewritten, alter=lambda body: body.update(first))
    shown = trust([head_of(rewritten.log.leaves, "taken from the falsified log")], witnesses=auditors("north", "south"))
    return Case(pack_of(rewritten).write(), "refuted", ["V08.root"], seq, shown)
