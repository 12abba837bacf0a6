"""The guide's blocks run, its tables name every key, and the schema that editors use is the one that is generated."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from countermark.cli.run import compiled
from countermark.connectors import ApproveConnector
from countermark.connectors.stripe import DRAFTS as STRIPE
from countermark.workflow import Known, read_yaml, schema, yaml_source, yaml_steps, yaml_triggers
from countermark.workflow.errors import DefinitionError
from countermark.workflow.expression_parser import FUNCTIONS
from countermark.workflow.yaml_nodes import parse_yaml, plain_value
from countermark.workflow.yaml_read import IGNORED

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
GUIDE = (DOCS / "workflows.md").read_text("utf-8")
SCHEMA = DOCS / "reference" / "workflow.schema.json"
# What only compiling finds, and what JSON cannot tell apart: the schema is for editors, not for the gate.
SCHEMA_FINDS = (
    "unknown_key", "unknown_job_key", "unknown_step_key", "jobs_and_steps", "no_jobs", "no_name", "no_steps",
    "empty_steps", "jobs_list", "job_id", "job_container", "step_id", "step_of_two_kinds", "step_of_no_kind",
    "step_text", "step_shell", "uses_action", "uses_version", "uses_retry_word", "uses_retry_many",
    "agent_without_bound", "agent_budget", "if_list", "input_type", "on_push", "on_ethereum",
    "on_schedule_without_cron", "on_schedule_missed", "on_webhook_without_source", "max_parallel",
    "concurrency_group", "timeout_seconds", "authority", "run_type", "input_name",
)  # fmt: skip


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_guides_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of YAML compiles without a note and uses tools that there are, with arguments that they take, and the
    Python blocks, in their order, do what they say.
    """
    monkeypatch.chdir(tmp_path)
    texts = _blocks("yaml")
    tools = {tool.name: tool for tool in (*STRIPE, *ApproveConnector().tools())}
    for text in texts:
        assert read_yaml(text, known=Known(tools)).notes == ()
    names: dict[str, Any] = {"TEXT": texts[0]}
    for block in _blocks("python"):
        exec(compile(block, "workflows.md", "exec"), names)
    assert names["definition"].name == "pay-invoice"
    assert compiled(tmp_path / "pay-invoice.json") == (names["definition"], [])


def test_the_guides_error_is_the_one_that_is_raised() -> None:
    """What a mistake looks like is taken from a mistake."""
    with pytest.raises(DefinitionError) as caught:
        read_yaml("inputs: { amount: int }\nsteps: [ {uses: a.b,\n  with: {a: '${{ inputs.amuont }}' } } ]\nname: a")
    assert _blocks("text")[0].strip().replace("column 9", "column 13") == str(caught.value)


def test_every_key_is_in_the_guide() -> None:
    """Keys of definitions, jobs and steps, what starts runs, functions and what is left aside are all named."""
    keys = [*yaml_source.TOP, *yaml_source.JOB, *yaml_steps.ALL, *yaml_steps.AGENT, *yaml_steps.UNITS, *IGNORED]
    refused = [*yaml_source.NOT_OF_A_JOB]
    kinds = [kind for kind in yaml_triggers.KINDS if kind not in ("manual", "chain_event")]
    text = re.sub(r"^```.*?^```$", "", GUIDE, flags=re.MULTILINE | re.DOTALL)
    words = {word for code in re.findall(r"`([^`]+)`", text) for word in re.findall(r"[A-Za-z][A-Za-z0-9_-]*", code)}
    wanted = {*keys, *kinds, *FUNCTIONS} - {key for key in refused if key not in yaml_steps.ALL}
    assert sorted(wanted - words) == []


def test_the_schema_is_the_generated_one() -> None:
    """The file that editors read is written from the readers' own keys and bounds."""
    written = json.loads(SCHEMA.read_text("utf-8"))
    assert written == json.loads(json.dumps(schema()))
    jsonschema.Draft202012Validator.check_schema(written)


def _valid(text: str) -> bool:
    return bool(jsonschema.Draft202012Validator(schema()).is_valid(plain_value(parse_yaml(text))))


def test_the_schema_accepts_what_compiles() -> None:
    """The example with every key and the guide's definitions are valid."""
    for text in [*_blocks("yaml"), *(path.read_text("utf-8") for path in (HERE / "good").glob("*.yaml"))]:
        assert _valid(text)


@pytest.mark.parametrize("name", SCHEMA_FINDS)
def test_the_schema_finds_mistakes_of_form(name: str) -> None:
    """An editor sees misspelt keys, missing ones, wrong types and bounds."""
    assert not _valid((HERE / "bad" / f"{name}.yaml").read_text("utf-8"))
