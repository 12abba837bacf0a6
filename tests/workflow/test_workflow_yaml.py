"""YAML compiles to one document, however it is written; each mistake is named with its line, column and fix."""

from __future__ import annotations

import os
import random
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from definition_support import TOOLS
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.tool import ArgSpec, ToolSpec
from countermark.workflow.definition_check import Known
from countermark.workflow.errors import DefinitionError
from countermark.workflow.flow import Workflow
from countermark.workflow.yaml_nodes import parse_yaml, plain_value
from countermark.workflow.yaml_source import compile_yaml, read_yaml

HERE = Path(__file__).parent
GOOD = (HERE / "good" / "everything.yaml").read_text("utf-8")
REPORT = {"report": "sha256:" + "0" * 64}
BAD = sorted((HERE / "bad").glob("*.yaml"))
WIDTH = 4_000  # PyYAML breaks long quoted texts so that they are read back as others
WAIT = "steps:\n  - wait: { seconds: 1 }\n"


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_mistake_is_named_with_its_place_and_fix(path: Path) -> None:
    """Each bad file is refused with the line, column, words and hint that its first lines expect."""
    text = path.read_text("utf-8")
    expected, hint = re.match(r"# expect (.*)\n# hint ?(.*)\n", text).groups()  # type: ignore[union-attr]
    with pytest.raises(DefinitionError) as caught:
        read_yaml(text, folder=HERE / "bad", workflows={"pay-invoice": "sha256:" + "0" * 64})
    error = caught.value
    assert f"{error.line}:{error.column} {error.what}" == expected
    assert error.hint == hint
    assert error.message == f"line {error.line}, column {error.column}: {error.what}"


def test_there_is_a_bad_file_for_each_mistake() -> None:
    """The collection is there, and none of its files is like another."""
    assert len(BAD) > 100
    expectations = [path.read_text("utf-8").split("\n", 1)[0].split(" ", 3)[3] for path in BAD]
    assert len(set(expectations)) > len(BAD) * 0.8


def test_what_says_nothing_here_is_noted() -> None:
    """Keys without a meaning are left aside with a line that says so, and so is an argument that is only a secret."""
    notes = read_yaml(GOOD, workflows=REPORT).notes
    assert [note.split(": ")[1] for note in notes] == [
        "the name of this workflow is `pay-invoice`", "`runs-on` says nothing here and is left aside",
        "`api-key` is a secret, which the tool's connector holds",
    ]  # fmt: skip


def _shuffled(value: Any, chance: random.Random) -> Any:
    if type(value) is dict:
        keys = list(value)
        chance.shuffle(keys)
        return {key: _shuffled(value[key], chance) for key in keys}
    return [_shuffled(item, chance) for item in value] if type(value) is list else value


def _quoted(text: str, chance: random.Random) -> str:
    """Comments and empty lines before top-level keys."""
    return "".join(
        (chance.choice(["", "\n", "# a comment: { [\n"]) if re.match(r"'?[a-z]", line) else "") + line
        for line in text.splitlines(keepends=True)
    )


@lru_cache(maxsize=1)
def _digest() -> str:
    return read_yaml(GOOD, workflows=REPORT).definition.digest


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32), flow=st.sampled_from([True, False, None]), indent=st.integers(2, 7),
    style=st.sampled_from([None, "'", '"']),
)  # fmt: skip
def test_formatting_does_not_change_the_digest(seed: int, flow: bool | None, indent: int, style: str | None) -> None:
    """Order of keys, comments, quotes, indentation, flow or block: the document and its digest stay the same."""
    chance = random.Random(seed)
    data = _shuffled(plain_value(parse_yaml(GOOD)), chance)
    if style is None:
        written = yaml.safe_dump(data, sort_keys=False, default_flow_style=flow, indent=indent, width=WIDTH)
    else:
        made = yaml.dump(
            data, Dumper=_quoting(style), sort_keys=False, default_flow_style=flow, indent=indent, width=WIDTH
        )
        written = str(made)
    again = read_yaml(_quoted(written, chance) if not flow else written, workflows=REPORT)
    assert again.definition.digest == _digest()


def _quoting(style: str) -> type[yaml.SafeDumper]:
    """A dumper that quotes every text and key."""

    class Quoting(yaml.SafeDumper):
        pass

    Quoting.add_representer(
        str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)
    )
    return Quoting


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5), ("-5", -5), ("+5", 5), ("0", 0), ("true", True), ("False", False), ("null", None), ("~", None),
        ("", None), ("yes", "yes"), ("on", "on"), ("'5'", "5"), ('"true"', "true"), ("2026-12-01", "2026-12-01"),
        ("12:30", "12:30"), ("0xA0b8", "0xA0b8"), ("1_000", "1_000"), ("1.2.3", "1.2.3"), ("'it''s'", "it's"),
        ('"a\\tb"', "a\tb"), ("{}", {}), ("[]", []), ("[a, 1]", ["a", 1]), ("${{ run.id }}", {"$": "run.id"}),
        ("'${{ run.id }}'", {"$": "run.id"}), ("a ${{ run.id }}", {"$": "format('a {0}', run.id)"}),
        ("'{0} ${{ run.id }}${{ run.id }}'", {"$": "format('{{0}} {0}{1}', run.id, run.id)"}),
        ('"${{ \'}}\' }}"', "}}"), ("${{ 5 }}", 5), ("${{ 'it''s' }}", "it's"), ("${{ env.A }}", "x y"),
        ("${{ env.B }}", {"$": "run.id || 'none'"}), ("${{ env.B || 1 }}", {"$": "run.id || 'none' || 1"}),
        ("'${{ env.B == env.A }}'", {"$": "(run.id || 'none') == 'x y'"}),
        ("z${{ env.C }}", {"$": "format('z{0}', 5)"}),
        ("${{ github.run_id }}", {"$": "run.id"}), ("${{ github.workflow }}", {"$": "run.name"}),
        ("${{ github.event.a }}", {"$": "event.a"}), ("${{ github.event.inputs.a }}", {"$": "inputs.a"}),
        ("|\n  a\n  b", "a\nb\n"), (">-\n  a\n  b", "a b"),
        ("{ a: { b: [ '${{ run.id }}' ] } }", {"a": {"b": [{"$": "run.id"}]}}),
    ],
)  # fmt: skip
def test_a_value_means_this(written: str, value: Any) -> None:
    """Scalars are those of YAML 1.2 without floats; `${{ }}` is an expression, alone or within a text."""
    text = (
        "name: a\nenv: { A: x y, B: \"${{ run.id || 'none' }}\", C: 5 }\ninputs: { a: string }\nsteps:\n"
        f"- uses: bank.pay\n  with:\n    x: {written}\n".replace("\n  a\n  b", "\n      a\n      b")
    )
    assert compile_yaml(text)["jobs"][0]["steps"][0]["with"] == [["x", value]]


def test_data_never_becomes_code() -> None:
    """An expression's text is part of a format's literal, its braces doubled; a default that looks like one is data."""
    text = (
        "name: a\ninputs: { a: { default: '{0} $ { { x } }' } }\nsteps:\n- uses: bank.pay\n  with: { x: '{{ x }}' }\n"
    )
    document = compile_yaml(text)
    assert document["inputs"]["a"]["default"] == "{0} $ { { x } }"
    assert document["jobs"][0]["steps"][0]["with"] == [["x", "{{ x }}"]]


BOMBS = {
    "aliases": "a: &a [x]\n" + "".join(f"a{n}: &a{n} [*a, *a, *a, *a]\n" for n in range(50)),
    "flow_depth": "[" * 100_000,
    "flow_mappings": "{a: " * 50_000,
    "block_depth": "".join(f"{' ' * n}a:\n" for n in range(500)),
    "block_sequences": "- " * 100_000 + "a",
    "many_values": "steps: [" + "a, " * 50_000 + "]",
    "long": "name: " + "a" * 300_000,
    "long_key": "a" * 200_000 + ": b",
    "spaces": " " * 250_000,
    "quotes": "name: '" + "''" * 100_000,
    "comments": "#\n" * 120_000,
    "questions": "? " * 100_000,
    "tags": "!!set {" + "? a, " * 30_000,
    "anchors": "&a " * 80_000,
    "newlines": "name:\n" + "\n" * 200_000,
    "documents": "---\n" * 60_000,
    "escapes": 'name: "' + "\\u0041" * 40_000 + '"',
    "expressions": "name: a\nsteps:\n- uses: b.c\n  with: { x: '" + "${{ run.id }}" * 15_000 + "' }",
    "expression_depth": "name: a\nsteps:\n- uses: b.c\n  if: " + "(" * 100_000,
    "open_expression": "name: a\nsteps:\n- uses: b.c\n  if: ${{ '" + "a" * 100_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_nothing(name: str) -> None:
    """Size, depth and number of values are bounded while the text is read: a text made to hurt is refused early."""
    with pytest.raises(DefinitionError):
        read_yaml(BOMBS[name])


@pytest.mark.parametrize(
    "text", ["", "\n", "a", "[]", "\x00", "a: \x07", "\ud800", "\ufeff", "--- a\n...", "\x85", "%"]
)
def test_what_is_no_definition_is_refused(text: str) -> None:
    """Whatever text it is, the answer is an error of this kind with a place, or about the whole text."""
    with pytest.raises(DefinitionError):
        read_yaml(text)


def test_what_is_no_text_is_refused() -> None:
    """Bytes are no text."""
    with pytest.raises(DefinitionError, match="is a text"):
        read_yaml(b"name: a")  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, 40), st.text(alphabet=" \n:-[]{}&*!|>'\"%@`#,?$a0\t", max_size=6))
def test_any_damage_is_an_error_of_this_kind(at: int, cut: int, put: str) -> None:
    """A file with a piece cut out and another put in compiles, or is refused with a place in it."""
    text = GOOD[:at] + put + GOOD[at + cut :]
    found: DefinitionError | None = None
    try:
        read_yaml(text, workflows=REPORT)
    except DefinitionError as error:
        found = error
    assert found is None or (1 <= found.line <= text.count("\n") + 2 and found.column >= 1)


def test_tools_are_checked_with_their_place() -> None:
    """Against the tools of a deployment, what does not fit is named where it stands in the file."""
    text = "name: a\nsteps:\n  - uses: bank.pay@v1\n    with:\n      amount: '5'\n      payee: a\n"
    with pytest.raises(DefinitionError, match="line 5, column 15: an int was expected, not a string"):
        read_yaml(text, known=Known(TOOLS))
    read_yaml(text.replace("'5'", "5"), known=Known(TOOLS))


def test_steps_without_an_id_are_named_by_their_title() -> None:
    """W3's way: the id is made of the name; one that is taken, or no name, is counted."""
    text = "name: a\nsteps:\n" + "".join(
        f"- {{ name: {name}, wait: {{ seconds: 1 }} }}\n"
        for name in ("Create a customer!", "2nd step", "2nd step", "''")
    )
    assert [step["id"] for step in compile_yaml(text)["jobs"][0]["steps"]] == [
        "create-a-customer", "step-2nd-step", "step-3", "step-4",
    ]  # fmt: skip


def test_jobs_stand_after_those_they_need() -> None:
    """The order of jobs in a file means nothing: they come after what they need, and by id."""
    jobs = {"b": "needs: [a]", "a": "", "c": "needs: b", "aa": "needs: b"}
    for order in (list(jobs), sorted(jobs), sorted(jobs, reverse=True)):
        text = "name: a\njobs:\n" + "".join(
            f"  {id_}:\n    {jobs[id_]}\n    steps: [ {{ wait: {{ seconds: 1 }} }} ]\n" for id_ in order
        )
        assert [job["id"] for job in compile_yaml(text)["jobs"]] == ["a", "b", "aa", "c"]


@pytest.mark.parametrize(
    ("on", "kinds"),
    [
        ("", ["manual"]), ("on: workflow_dispatch", ["manual"]), ("on: [workflow_dispatch]", ["manual"]),
        ("on: workflow_call", []), ("on: { workflow_call: , manual: }", ["manual"]),
        ("on:\n  schedule:\n    - cron: 0 9 * * *\n    - cron: 0 10 * * *", ["schedule", "schedule"]),
        ("on:\n  webhook: { source: stripe }\n  chain_event: [ { source: a }, { source: b } ]",
         ["chain", "chain", "webhook"]),
    ],
)  # fmt: skip
def test_on_says_what_starts_it(on: str, kinds: list[str]) -> None:
    """A word, a list of words or a mapping; without `on` people start it."""
    document = compile_yaml(f"name: a\n{on}\n{WAIT}")
    assert sorted(trigger["kind"] for trigger in document["triggers"]) == kinds


def test_code_is_taken_from_a_file(tmp_path: Path) -> None:
    """The text of a file beside the definition becomes part of it, so the digest covers it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "match.star").write_text("def main():\n    return {}\n")
    text = "name: a\nsteps: [ { run: ./code/match.star } ]"
    by_file = read_yaml(text, folder=tmp_path).definition
    written = read_yaml("name: a\nsteps:\n- run: |\n    def main():\n        return {}\n").definition
    assert by_file.digest == written.digest
    with pytest.raises(DefinitionError, match="comes from no folder"):
        read_yaml(text)


def test_code_is_taken_from_nowhere_else(tmp_path: Path) -> None:
    """No link, no way up, no device, no folder, nothing long, nothing that is not UTF-8."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "x.star").write_text("def main():\n    return {}\n")
    (inside / "link.star").symlink_to(outside / "x.star")
    (inside / "way").symlink_to(outside)
    (inside / "folder.star").mkdir()
    (inside / "long.star").write_text("#" * 32_001)
    (inside / "bytes.star").write_bytes(b"\xff")
    os.mkfifo(inside / "pipe.star")
    words = {
        "./link.star": "is a link", "./way/x.star": "is a link", "./../out/x.star": "leads elsewhere",
        "./folder.star": "is no file", "./long.star": "longer than", "./bytes.star": "not in UTF-8",
        "./pipe.star": "is no file", "./none.star": "there is no file", ".//x.star": "leads elsewhere",
    }  # fmt: skip
    for name, said in words.items():
        with pytest.raises(DefinitionError, match=said):
            read_yaml(f"name: a\nsteps: [ {{ run: {name} }} ]", folder=inside)


def test_a_published_shape_runs_with_its_actions_renamed() -> None:
    """A file as users of other products write it compiles once `uses` names governed tools and shell lines are gone."""
    text = """
name: Stripe payment example
on:
  workflow_dispatch:
    inputs:
      amount: { description: 'in cents', required: true }
      email: { description: Customer email, required: true }
jobs:
  payment:
    runs-on: ubuntu-latest
    environment: production
    permissions: { contents: read }
    steps:
      - name: Create customer
        id: customer
        uses: stripe.customers.create
        with:
          api-key: ${{ secrets.STRIPE_API_KEY }}
          email: ${{ inputs.email }}
      - name: Create payment
        uses: stripe.payment_intents.create@v1
        with:
          api-key: ${{ secrets.STRIPE_API_KEY }}
          amount: ${{ fromJSON(inputs.amount) }}
          customer: ${{ steps.customer.outputs.id }}
          key: messages/${{ github.run_id }}.txt
"""
    document = compile_yaml(text)
    assert document["name"] == "stripe-payment-example"
    assert document["jobs"][0]["steps"][1]["with"] == [
        ["amount", {"$": "fromJSON(inputs.amount)"}], ["customer", {"$": "steps.customer.outputs.id"}],
        ["key", {"$": "format('messages/{0}.txt', run.id)"}],
    ]  # fmt: skip


def test_names_with_a_hyphen_are_read_as_people_write_them() -> None:
    """Inputs, outputs and axes may have one, after a point and in brackets alike."""
    text = """
name: hyphens
on: { workflow_dispatch: { inputs: { invoice-id: { type: string, required: true } } } }
outputs: { the-invoice: "${{ needs.main.outputs.all-of-it }}" }
jobs:
  main:
    strategy: { matrix: { part-no: [1, 2] } }
    outputs: { all-of-it: "${{ steps.s.outputs.spelled-out }}" }
    steps:
      - id: s
        with: { invoice: "${{ inputs['invoice-id'] }}", part: "${{ matrix.part-no }}" }
        run: |
          def main(invoice, part):
              return {"spelled-out": "%s/%d" % (invoice, part)}
        outputs: { spelled-out: string }
"""
    document = compile_yaml(text)
    assert document["jobs"][0]["steps"][0]["with"][0] == ["invoice", {"$": "inputs.invoice-id"}]
    assert compile_yaml(text.replace("['invoice-id']", ".invoice-id")) == document
    flow = Workflow("hyphens")
    invoice = flow.input("invoice-id", str, required=True)
    assert document["inputs"].keys() == {"invoice-id"}
    assert invoice.spelling == "inputs.invoice-id"


def test_the_place_within_a_text_is_exact() -> None:
    """In plain, quoted and block texts a mistake in an expression is named at its very character."""
    for written, place in {
        "if: run.id = 'a'": (4, 16), 'if: "run.id = 1"': (4, 17), "if: |\n      run.id\n      = 1": (6, 7),
        "if: >\n      run.id\n      = 1": (4, 9), 'if: "run.id\\u0020= 1"': (4, 9),
    }.items():  # fmt: skip
        with pytest.raises(DefinitionError) as caught:
            read_yaml(f"name: a\nsteps:\n  - wait: {{ seconds: 1 }}\n    {written}\n")
        assert (caught.value.line, caught.value.column) == place, written


TEXTUAL = """name: a
ouputs: {}
jobs:
  one:
    steps:
      - waitt: { seconds: 1 }
      - wait: { minute: 1 }
      - uses: bank.pay
        with: { amount: "${{ inputs. }}", to: acme }
  two:
    neds: one
    steps: [{ approve: "?", retry: 2 }]
"""
NAMES = """name: a
inputs: { amount: { type: int, required: true } }
outputs: { paid: "${{ needs.one.outputs.nothing }}" }
jobs:
  one:
    steps:
      - id: pay
        uses: bank.pay
        with: { amonut: "${{ inputs.amount }}", to: 7 }
      - id: sweep
        uses: bank.sweeep
        with: { amount: "${{ inputs.amuont }}" }
      - wait: { seconds: "${{ steps.sweep.outputs.whatever }}" }
  two:
    needs: [oen]
    if: ${{ needs.oen.result == run.idd }}
    steps: [{ wait: { seconds: -1 } }]
"""
ARGS = tuple(ArgSpec(name, type_, "inert", name) for name, type_ in (("amount", "integer"), ("to", "string")))
BANK = {name: ToolSpec(name, "bank", "change", ARGS) for name in ("bank.pay", "bank.sweep")}


@pytest.mark.parametrize(
    ("text", "lines"), [(TEXTUAL, [2, 6, 7, 9, 11, 12]), (NAMES, [3, 9, 9, 11, 12, 15, 16, 17])], ids=["text", "names"]
)
def test_all_mistakes_that_do_not_follow_from_each_other_are_told_at_once(text: str, lines: list[int]) -> None:
    """Each with its line and its hint, in the order of the lines; what only follows from one of them is not told."""
    with pytest.raises(DefinitionError) as caught:
        read_yaml(text, known=Known(BANK))
    error = caught.value
    assert [one.line for one in error.each] == lines, error.message
    assert error.message.startswith(f"{len(lines)} mistakes:\n  line {lines[0]}, ")
    assert error.message.count("\n") == len(lines)
    assert all(one.what in error.message and one.hint in error.message for one in error.each)
    assert error.hint == ""
    named = error.of_file("a.yaml")
    assert named.message.count("a.yaml, line ") == len(lines)
