"""docs/triggers.md, command by command, before a real server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

from walking import DOCS, script, walk

pytest.importorskip("uvicorn", reason="needs extra: server")


@pytest.mark.slow
def test_the_page_on_triggers_works_as_typed(tmp_path: Path) -> None:
    """Two deliveries of one event are one run that ends well; a forged and a changed one are refused."""
    commands = script("triggers.md", ("8521",)).replace(
        "sleep 2", "for n in $(seq 60); do countermark runs list --json | grep -q success && break; sleep 0.5; done"
    )
    told = walk(commands + "\ncountermark audit reperform\n", tmp_path, 300)
    answers = [line for line in told.splitlines() if line.startswith(('{"event":', "401 ", "409 "))]
    assert [answers[0] == answers[1], *answers[2:]] == [True, "401 bad_webhook", "409 identity_conflict"]
    runs = json.loads((tmp_path / "runs.json").read_text("utf-8"))
    assert json.dumps(runs).count('"success"') == 1
    journal = (tmp_path / "acme" / "data" / "journal.db").read_bytes()
    assert b"Ann Example" not in journal


def test_the_page_shows_what_the_settings_and_definitions_take() -> None:
    """The blocks in TOML and YAML that are not run are read here, so that no key of them is wrong."""
    import re
    import tomllib

    from countermark.wiring.workflow_settings import read_workflows
    from countermark.workflow.yaml_source import compile_yaml

    page = (DOCS / "triggers.md").read_text("utf-8")
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (yaml,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    settings = read_workflows(tomllib.loads(toml)["workflows"], {43114: "accepted"}, "countermark.toml")
    assert settings.chains["usdc-in"].final == "accepted"
    steps = "name: x\ninputs: { day: { type: string, required: true } }\nsteps:\n  - wait: { seconds: 1 }\n"
    document = compile_yaml(steps + yaml)
    assert document["triggers"][0]["cron"] == "0 9 * * MON-FRI"
