"""The quick reading of a record: one expression over its text, which accepts nothing that the shapes refuse."""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from countermark_verify import canon, envelope, shape, spelling
from countermark_verify.certificate import certify
from countermark_verify.errors import Malformed
from countermark_verify.glance import glance

FILES = Path(__file__).parent.parent / "vectors" / "files"
QUICK = ("action.decided", "action.settled", "run.started", "run.ended", "escalation.raised", "request.signed")


def raws(name: str) -> Iterator[bytes]:
    """Every entry of a vector."""
    with zipfile.ZipFile(FILES / name) as pack:
        for member in sorted(pack.namelist()):
            if member.startswith("log/tile/entries/"):
                data, at = pack.read(member), 0
                while at < len(data):
                    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
                    yield data[at + 2 : end]
                    at = end


def slowly(raw: bytes) -> dict[str, Any] | None:
    try:
        return envelope.parse_slowly(raw)
    except Malformed:
        return None


def test_what_happens_every_second_is_read_quickly() -> None:
    """The kinds that a day is full of have an expression, and honest records match theirs: with the same value."""
    assert set(QUICK) <= envelope._SPELT.keys()
    quick = [(raw, envelope._quick(raw)) for raw in raws("honest.zip")]
    read = [(raw, value) for raw, value in quick if value is not None]
    assert len(read) > 0.8 * len(quick)
    assert all(value == slowly(raw) for raw, value in read)


def _mutated(raw: bytes, rng: random.Random) -> bytes:
    """One hostile change: of bytes, or of one value or key somewhere in the document."""
    if rng.random() < 0.4:
        at, piece = (
            rng.randrange(len(raw)),
            rng.choice([b'"', b"\\", b"0", b"-", b" ", b",", b"}", b"\x00", b"\xc3\xa9", b"9"]),
        )
        return raw[:at] + piece + raw[at + rng.randrange(2) :]
    document = json.loads(raw)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(document)
    holder, key = rng.choice(places)
    evil = ['a","b":"c', "é", "", "x" * 1_001, "\ud800", "\x7f", 2**53, 2**53 - 1, -1, 10**15, True, None, 1.5, [], {},
            {"a": [1]}, [[0]], {"": 1}, {"k" * 65: 1}, "a\nb", "\u2028"]  # fmt: skip
    if isinstance(holder, dict) and rng.random() < 0.2:
        holder[rng.choice(["zz", "", 'a"b', "é"])] = rng.choice(evil)
    else:
        holder[key] = rng.choice(evil)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.1, sort_keys=rng.random() < 0.95, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def test_nothing_is_read_quickly_that_the_shapes_refuse() -> None:
    """Every record of a vector, changed in hostile ways: the quick reading says nothing, or what the shapes say."""
    rng = random.Random(7)
    found = refused = 0
    for raw in raws("honest.zip"):
        for _ in range(25):
            changed = _mutated(raw, rng)
            value = envelope._quick(changed)
            if value is None:
                refused += 1
                continue
            assert value == slowly(changed), changed
            found += 1
    assert refused > 500
    assert found > 50


def _reaches(parsed: Any) -> Iterator[int]:
    """The characters below 128 that any part of a parsed pattern may match."""
    parser = re._parser  # type: ignore[attr-defined]
    for operator, argument in parsed:
        name = str(operator)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            yield from (code for code in range(128) if re.fullmatch(_one(operator, argument), chr(code), re.DOTALL))
        for part in argument if isinstance(argument, list | tuple) else (argument,):
            if isinstance(part, parser.SubPattern):
                yield from _reaches(part)
            elif isinstance(part, list) and name == "BRANCH":
                for branch in part:
                    yield from _reaches(branch)


def _one(operator: Any, argument: Any) -> str:
    name = str(operator)
    if name == "IN":
        rows = [(str(op), arg) for op, arg in argument]
        sign = "^" if rows[0][0] == "NEGATE" else ""
        body = ""
        for op, arg in rows:
            if op == "LITERAL":
                body += f"\\u{arg:04x}"
            elif op == "RANGE":
                body += f"\\u{arg[0]:04x}-\\u{arg[1]:04x}"
            else:
                assert op == "NEGATE", op
        return f"[{sign}{body}]"
    if name == "ANY":
        return "."
    return ("[^" if name == "NOT_LITERAL" else "[") + f"\\u{argument:04x}]"


_PAST = ("[!-~]+", "[A-z]", "[ -~]", "a.b", "[^a]", "\\S+", "[+-_]")


@pytest.mark.parametrize(
    "pattern",
    [*_PAST, "[^\\x00-\\x1f]+", "gate|(?:agent|person):[^\\x00-\\x1f]*", "act_[0-9a-f]{32}", "[a-z@-]{1,32}"],
)
def test_a_pattern_that_could_read_past_its_string_has_no_expression(pattern: str) -> None:
    """No part of what is put between quotation marks matches a quotation mark or a backslash."""
    expression = spelling.text(pattern, 65_535)
    if expression is None:
        assert pattern in _PAST
        return
    inner = expression.removeprefix('(?>"').removesuffix('")')
    assert not {ord('"'), ord("\\")} & set(_reaches(re._parser.parse(inner)))  # type: ignore[attr-defined]


def test_no_pattern_of_any_record_reads_past_its_string() -> None:
    """The same for every pattern that a body has: what the verifier's modules give to `text`."""
    patterns = set()
    for module in Path(shape.__file__).parent.glob("*.py"):
        patterns |= {match[1] for match in re.finditer(r'\btext\(r"([^"]*)"', module.read_text("utf-8"))}
    assert len(patterns) > 20
    for pattern in patterns:
        expression = spelling.text(pattern, 65_535)
        if expression is not None:
            inner = expression.removeprefix('(?>"').removesuffix('")')
            assert not {ord('"'), ord("\\")} & set(_reaches(re._parser.parse(inner))), pattern  # type: ignore[attr-defined]


def test_rendering_is_what_the_standard_library_renders() -> None:
    """The encoder that is made once gives the bytes of the one that `json` makes for each call."""
    for value in ({"b": [1, True, None, "é\u2028\x7f\n"], "a": {}}, "text", 5, [], {"z": -(2**53) + 1}):
        assert canon.render(value) == canon._ENCODER.encode(value).encode()
    with pytest.raises(ValueError, match="JSON"):
        canon.render(float("nan"))


@pytest.mark.parametrize("value", [0, 1, -1, 9, 10**14, 10**15, 9 * 10**15, 2**53 - 1, 2**53, -(2**53) + 1])
def test_an_integers_expression_is_within_its_bounds(value: int) -> None:
    """Numbers that match are in range; those near the end of the profile are left to the shape."""
    for low, high in (
        (0, canon.INTEGER_MAX),
        (1, canon.INTEGER_MAX),
        (-canon.INTEGER_MAX, canon.INTEGER_MAX),
        (0, 9_999),
    ):
        expression = shape.spelt(shape.integer(low, high))
        assert expression is not None
        if re.fullmatch(expression, str(value)):
            assert low <= value <= high


def test_nothing_is_glanced_at_that_the_shapes_refuse() -> None:
    """Hostile changes again: what is read off the text alone is what the value says, and the value is canonical."""
    rng = random.Random(13)
    found = refused = 0
    computed = [raw for raw in raws("honest-workflow.zip") if b'"kind":"compute.executed"' in raw]
    assert all(map(glance, computed))
    for raw in (*raws("honest.zip"), *computed):
        for changed in (raw, *(_mutated(raw, rng) for _ in range(25))):
            seen, value = glance(changed), slowly(changed)
            if seen is None:
                refused += 1
                continue
            assert value is not None, changed
            body, streams = value["body"], value["streams"]
            told = [(name, int(at), of) for name, at, of in zip(*[iter(seen[8:17])] * 3, strict=True) if name]
            assert {name: [at, of] for name, at, of in told} == streams
            assert [int(seen[0]), int(seen[7])] == [value["at"], value["seq"]]
            assert [json.loads(one) for one in seen[1:7]] == [
                body["agent"], body["run"], value["by"], value["lane"], value["nonce"], value["prev"],
            ]  # fmt: skip
            payee = body.get("terms", {}).get("payee")
            assert (seen[17] is None or seen[17] == "null") if payee is None else json.loads(seen[17]) == payee
            assert value["by"] == envelope.writer(value["kind"], body)
            found += 1
    assert found > 60
    assert refused > 500


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"args":{"amount":', '"args":{"zz":1,"amount":'),
        ('"args":{"amount":', '"args":{"amount":1,"amount":'),
        ('"facts":{', '"facts":{"zz":1,'),
        ('"facts":{', '"facts":{"a":{"known":true},"a":{"known":true},'),
        ('"reason":null', '"reason":null,"reason":null'),
        ('"trace":"', '"trace":"\\u0041'),
        ('"trace":"', '"trace":"\\/'),
        ('"trace":"', '"trace":"\\u001F'),
        ('"trace":"', '"trace":"\\u0008'),
        ('"trace":"', '"trace":"\\ud800'),
        ('"v":1}', '"v":1} '),
        ('"v":1}', '"v":1.0}'),
        ('"by":"agent:', '"by":"gate:'),
        ('"by":"agent:', '"by":"agent: '),
    ],
)
def test_text_that_is_not_canonical_is_not_glanced_at(old: str, new: str) -> None:
    """Keys out of order or twice, escapes and numbers in another spelling, another writer: left to the slow reading."""
    decided = [raw.decode() for raw in raws("honest.zip") if b'"kind":"action.decided"' in raw]
    tried = [text.replace(old, new, 1) for text in decided if old in text and glance(text.encode()) is not None]
    assert tried
    assert [text for text in tried if glance(text.encode()) is not None] == []


@pytest.mark.parametrize("output", ['{"a":[]}', '{"a":{"b":1}}', '{"b":1,"a":1}', '{"a":1,"a":1}', "1", '{"":1}'])
def test_an_output_that_is_nested_or_unordered_is_not_glanced_at(output: str) -> None:
    """What a pure step gave is read off the text where its members are plain values, in order, each once."""
    raw = next(raw for raw in raws("honest-workflow.zip") if b'"kind":"compute.executed"' in raw)
    start = raw.index(b'"output":') + len(b'"output":')
    for same in ("{}", '{"a":"x","b":-1,"c":null}', "null"):
        assert glance(raw[:start] + same.encode() + raw[raw.index(b',"place":') :]) is not None
    assert glance(raw[:start] + output.encode() + raw[raw.index(b',"place":') :]) is None


@pytest.mark.parametrize("escape", ["\\u0000", "\\u000b", "\\u001f", "\\b", "\\n", '\\"', "\\\\"])
def test_canonical_escapes_are_glanced_at(escape: str) -> None:
    """Each escape that canonical form has."""
    decided = next(raw for raw in raws("honest.zip") if b'"kind":"action.decided"' in raw and glance(raw) is not None)
    changed = decided.replace(b'"trace":"', f'"trace":"{escape}'.encode())
    assert changed != decided
    assert slowly(changed) is not None
    assert glance(changed) is not None


def test_what_brings_a_stream_more_is_not_glanced_at() -> None:
    """A run of a definition also stands in the stream of its name: its records are read as a whole."""
    ended = next(raw for raw in raws("honest.zip") if b'"kind":"run.ended"' in raw)
    assert glance(ended) is not None
    document = json.loads(ended)
    workflow = {"name": "pay", "status": "success", "outputs": {}, "undone": [], "left": []}
    document["body"]["workflow"] = workflow
    changed = canon.render(document)
    assert slowly(changed) is not None
    assert glance(changed) is None
    assert certify(document["seq"], 1, len(changed).to_bytes(2, "big") + changed) is None  # it is not in that stream
