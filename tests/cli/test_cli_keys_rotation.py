"""keys prepare, rotate, retire and show, as people type them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import Bench, Provider, document, ok

from countermark.model.clock import SystemClock
from countermark.policy import template_files
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import init_deployment

OPERATOR = """[people.auditor]
name = "Auditor"
roles = ["operator"]
key = "{{KEY:auditor}}"

[agents.treasury]"""


def test_the_logs_key_is_prepared_handed_over_by_two_people_and_the_old_one_retired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/keys.md has it: prepare, start again, rotate with two signatures, retire; the deployment opens after."""
    limits = template_files("vendor-payments")["limits.toml"].replace("[agents.treasury]", OPERATOR)
    root, provider, half = tmp_path / "deployment", {"stripe": Provider()}, str(tmp_path / "half.json")
    made = init_deployment(root, "vendor-payments", "acme", connectors=provider, edit={"limits.toml": limits})
    with open_deployment(root, agent="treasury", connectors=provider) as handle:
        here = Bench(made, handle)
        prepared = document(here.run("keys", "prepare", "--json"))
        assert here.run("keys", "prepare").exit_code == 1
        assert here.run("keys", "retire").exit_code == 1
    with open_deployment(root, agent="treasury", connectors=provider) as handle:
        here = Bench(made, handle)
        ok(here.run("keys", "rotate", "--days", "1", "--reason", "yearly", "--by", "treasurer",
                    "--key", here.key("treasurer"), "--out", half))  # fmt: skip
        again = here.run("keys", "rotate", "--by", "auditor", "--key", here.key("auditor"), "--second", half, "--json")
        assert document(again)["new"] == prepared["new"]
        assert here.run("keys", "retire").exit_code == 1  # the overlap is not over
        with monkeypatch.context() as ahead:  # nor by a clock that is days ahead just now
            ahead.setattr(SystemClock, "now_us", lambda self: 2**52)
            assert "the overlap is not over" in here.run("keys", "retire").output
        shown = document(here.run("keys", "show", "--json"))
        assert (shown["log"], shown["next"], shown["retired"]) == (prepared["old"], prepared["new"], [])
        assert shown["ml_dsa"].startswith("countermark/acme/l0+")
        assert document(here.run("status", "--json"))["log_key"] == prepared["new"]
        ok(here.run("doctor"), 0)
