"""Lies without number: an honest history with one thing changed at random, and everything after it made to fit.

The insider holds every key: digests are carried along, people and agents sign anew what was changed, and a restore
states the tree as it became. So only what the records mean can tell.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

from build import ZERO, Key, b64, canonical, digest, doc_digest, root_of
from bundle import PEOPLE, person_key
from enrolments import PHONE, SECOND, Passkey
from insider_signed import NEXT, SIGNER
from insider_witnesses import cosigned_again
from lies import FOREIGN
from scribe import Story

Record = dict[str, Any]
Path = tuple[Any, ...]
KEYS = {
    key.text: key
    for key in (
        *map(person_key, PEOPLE), PHONE, SECOND, Passkey("activator's laptop"), Key("agent/payer"), Key("agent/clerk"),
        SIGNER, NEXT, FOREIGN,
    )
}  # fmt: skip
# Kind -> what is signed in it, and its member that names the person in `by`.
SIGNED = {
    "policy.activated": ("activation", "activator"),
    "mandate.granted": ("mandate", "principal"),
    "mandate.revoked": ("revocation", "person"),
    "kill.cleared": ("clearance", "person"),
    "escalation.answered": ("approval", "person"),
    "lane.accepted": ("acceptance", "person"),
    "review.cleared": ("review", "person"),
    "action.resolved": ("resolution", ""),
    "obligation.imported": ("import", ""),
    "obligation.reopened": ("reopening", ""),
    "key.enrolled": ("enrolment", ""),
    "key.removed": ("removal", "by"),
    "absence.set": ("absence", ""),
    "payee.changed": ("details", "person"),
    "hold.set": ("order", "person"),
    "hold.cleared": ("release", ""),
    "data.erased": ("erasure", ""),
}
DOMAINS = {"details": "payee", "order": "hold"}  # where it is not called as its member is


def forged(story: Story, rng: Random) -> tuple[list[bytes], str]:
    """The leaves of a history with one lie, and the lie in words."""
    records = copy.deepcopy(story.log.records)
    names = [story.log.digest_of(seq) for seq in range(len(records))]
    origins: list[int | None] = list(range(len(records)))
    place = rng.choice(_places(records, rng))
    lie = rng.random()
    if lie < 0.08:
        told = f"{records[place]['kind']} left out"
        del records[place], origins[place]
    elif lie < 0.2:
        to = rng.randrange(place + 1, len(records) + 1)
        again = copy.deepcopy(records[place])
        again |= {"at": records[to - 1]["at"], "nonce": f"{rng.getrandbits(128):032x}"}
        records.insert(to, again)
        origins.insert(to, None)
        told = f"{again['kind']} again"
    else:
        told = _bend(records, place, rng)
    _renumber(records, origins)
    _follow(records, story)
    return _sealed(records, origins, names, story), told


def _renumber(records: list[Record], origins: list[int | None]) -> None:
    """What names a record by its place names the place where that stands now."""
    places = {origin: seq for seq, origin in enumerate(origins) if origin is not None}
    for record, origin in zip(records, origins, strict=True):
        body = record["body"]
        for member in ("decided", "intent", "refused") if origin is not None else ():
            if type(body.get(member)) is int:
                body[member] = places.get(body[member], body[member])
        if origin is not None and isinstance(reasons := body.get("reasons"), list):
            olds = [int(text[4:]) if str(text).startswith("seq:") and text[4:].isdigit() else None for text in reasons]
            body["reasons"] = [
                text if old is None else f"seq:{places.get(old, old)}" for text, old in zip(reasons, olds, strict=True)
            ]


def renewed(story: Story) -> list[bytes]:
    """The leaves of the same history under another first nonce: every digest is another one, and nothing is a lie."""
    records = copy.deepcopy(story.log.records)
    records[0]["nonce"] = "0" * 32
    _follow(records, story)
    return _sealed(records, list(range(len(records))), [story.log.digest_of(seq) for seq in range(len(records))], story)


def _places(records: list[Record], rng: Random) -> list[int]:
    """Mostly what is said about an action after its decision, and what stands in no action's life."""
    usual = ("gate.", "policy.", "mandate.", "run.", "action.decided", "escalation.", "workflow.", "step.")
    rare = [seq for seq, record in enumerate(records) if not record["kind"].startswith(usual)]
    return rare if rare and rng.random() < 0.7 else list(range(len(records)))


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _paths(item, (*path, name))


def _at(value: Any, path: Path) -> Any:
    for name in path:
        value = value[name]
    return value


def _bend(records: list[Record], place: int, rng: Random) -> str:
    """Change one member of a body, perhaps to what stands there in another record of the kind."""
    record = records[place]
    body = record["body"]
    path = rng.choice(list(_paths(body)))
    others = []
    for other in records:
        if other["kind"] == record["kind"] and other is not record:
            try:
                others.append(copy.deepcopy(_at(other["body"], path)))
            except (KeyError, IndexError, TypeError):
                continue
    value = _other(_at(body, path), others, rng)
    _at(body, path[:-1])[path[-1]] = value
    kind = record["kind"]
    if kind.startswith("run.") or kind == "request.signed":
        record["by"] = f"agent:{body['agent']}"
    if path[-1] in ("person", "activator", "principal") and isinstance(value, str) and value in PEOPLE:
        signer = _at(body, path[:-1]) if "key" in _at(body, path[:-1]) else body
        if "key" in signer and rng.random() < 0.8:
            signer["key"] = person_key(value).text
    if kind in SIGNED and SIGNED[kind][1]:
        document = body.get(SIGNED[kind][0])
        if isinstance(document, dict):
            record["by"] = f"person:{document.get(SIGNED[kind][1])}"
    return f"{kind} {'.'.join(str(name) for name in path if isinstance(name, str))}"


def _other(value: Any, others: list[Any], rng: Random) -> Any:
    """Another value than this one, mostly of its type."""
    if isinstance(value, bool):
        choices: list[Any] = [not value]
    elif isinstance(value, int):
        choices = [value + 1, value - 1, 0, 2 * value, value + 10**6 * rng.randrange(-900, 900), None]
    elif isinstance(value, str):
        choices = [value + "x", value[:-1], "", value.upper(), None]
        if value in PEOPLE:
            choices = sorted(PEOPLE)
        elif value in KEYS:
            choices = sorted(KEYS)
        elif value.startswith("sha256:"):
            choices = ["sha256:" + "ab" * 32, None]
    elif isinstance(value, list):
        choices = [[], value[:-1], value + value[-1:], value[::-1]]
    else:
        choices = [None, 1, "x", {}]
    different = [
        choice for choice in (*choices, *others, *others) if choice != value or type(choice) is not type(value)
    ]
    return rng.choice(different) if different else None


def _follow(records: list[Record], story: Story) -> None:
    """Lists of movements and business keys agree with what was changed."""
    once = {tool["name"]: tool["once_scope"] for bundle in story.bundles for tool in bundle["compiled"]["tools"]}
    for seq, record in enumerate(records):
        body = record["body"]
        said = body.get("import") if record["kind"] == "obligation.imported" else body
        keyed = record["kind"] in ("obligation.imported", "lane.imported") and isinstance(said, dict)
        if keyed and isinstance(said.get("pairs"), list) and isinstance(body.get("obligation"), str):
            body["obligation"] = doc_digest("obligation", [once.get(said.get("tool"), ""), said["pairs"]])
        if record["kind"] == "lane.succeeded" and isinstance(body.get("activity"), dict):
            total, found = ZERO, 0
            for later in records[seq + 1 :]:
                if later["kind"] != "lane.imported":
                    break
                total, found = doc_digest("activity", [total, later["body"]]), found + 1
            body["activity"] |= {"digest": total, "found": found}


def _sealed(records: list[Record], origins: list[int | None], names: list[str], story: Story) -> list[bytes]:
    """Chain and sign everything again; what refers to a record or a mandate by its digest is carried along."""
    renamed: dict[str, str] = {}
    leaves: list[bytes] = []
    streams: dict[str, tuple[int, str]] = {}
    chains: dict[str, tuple[str, str]] = {}
    prev = ZERO
    for seq, (record, origin) in enumerate(zip(records, origins, strict=True)):
        body = _renamed(record["body"], renamed)
        if record["kind"] == "lane.succeeded" and origin is not None:
            _restated(body, origin, leaves, story)
        if record["kind"] == "head.witnessed" and origin is not None:
            _seen_again(body, origin, leaves, story)
        _sign(record["kind"], body)
        places = {}
        for name in record["streams"]:
            last, last_digest = streams.get(name, (-1, ZERO))
            places[name] = [last + 1, last_digest]
        whole = record | {"seq": seq, "prev": prev, "streams": places, "body": body}
        leaves.append(canonical(whole))
        prev = digest("record", leaves[-1])
        streams |= {name: (place, prev) for name, (place, _) in places.items()}
        if origin is not None:
            old = names[origin]
            renamed |= {old: prev, f"esc_{old[7:39]}": f"esc_{prev[7:39]}", f"kill_{old[7:23]}": f"kill_{prev[7:23]}"}
            _chained(record, (old, prev), chains, renamed)
            if record["kind"] == "mandate.granted":
                renamed[story.log.records[origin]["body"]["digest"]] = body["digest"]
    return leaves


def _chained(record: Record, names: Path, chains: dict[str, tuple[str, str]], renamed: dict[str, str]) -> None:
    """What a subject has is named by the digests of its records: as it was, and as it became."""
    body = record["body"]
    if record["kind"] == "data.erased" and isinstance(body.get("erasure"), dict):
        chains.pop(str(body["erasure"].get("subject")), None)
    subject = body.get("subject", "")
    if record["kind"] == "action.decided" and '"$sd"' in repr(body).replace("'", '"') and body["terms"]:
        subject = str(body["terms"].get("payee") or f"agent:{body['agent']}")
    if subject:
        before = chains.get(subject, (ZERO, ZERO))
        chains[subject] = (doc_digest("subject", [before[0], names[0]]), doc_digest("subject", [before[1], names[1]]))
        renamed[chains[subject][0]] = chains[subject][1]


def _restated(body: dict[str, Any], origin: int, leaves: list[bytes], story: Story) -> None:
    """The tree below a restore is another one now; what the lie itself says about it stays."""
    true = root_of(story.log.leaves[:origin]).hex()
    for part in (body.get("predecessor"), body.get("known")):
        if isinstance(part, dict) and (part.get("size"), part.get("root")) == (origin, true):
            part |= {"size": len(leaves), "root": root_of(leaves).hex()}


def _seen_again(body: dict[str, Any], origin: int, leaves: list[bytes], story: Story) -> None:
    """The witnesses cosign the tree as it is now; what the lie itself says about it stays."""
    told = story.log.records[origin]["body"]
    size = max(0, len(leaves) - (origin - told["size"]))
    root = root_of(leaves[:size])
    for name, true in (("size", size), ("root", root.hex()), ("note", cosigned_again(told["note"], size, root, story))):
        if body.get(name) == told[name]:
            body[name] = true


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, dict):
        return {name: _renamed(item, names) for name, item in value.items()}
    return value


def _sign(kind: str, body: dict[str, Any]) -> None:
    """Sign what stands there now, by the keys that stand there now."""
    if kind == "request.signed":
        key = KEYS.get(body["key"])
        covered = body["covered"]
        if key is not None and isinstance(covered, list) and all(isinstance(pair, list) for pair in covered):
            lines = [f'"{pair[0]}": {pair[-1]}' for pair in covered if pair]
            base = "\n".join([*lines, f'"@signature-params": {body["params"]}'])
            body["sig"] = b64(key.private.sign(base.encode()))
    if kind not in SIGNED:
        return
    document = body.get(SIGNED[kind][0])
    rows = body["signed"] or [] if "signed" in body else [body, body.get("second")]
    for row in rows:
        key = KEYS.get(row.get("key", "")) if isinstance(row, dict) else None
        if key is not None:
            row["sig"] = key.sign_doc(DOMAINS.get(SIGNED[kind][0], SIGNED[kind][0]), document)
    if kind == "key.enrolled" and isinstance(document, dict) and body["proof"] is not None:
        shown = KEYS.get(document.get("key", ""))
        body["proof"] = body["proof"] if shown is None else shown.sign_doc("enrolment-proof", document)
    if kind == "mandate.granted":
        body["digest"] = doc_digest("mandate", document)
