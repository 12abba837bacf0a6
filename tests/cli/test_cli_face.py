"""The face of the command line: help, start-up cost, exit codes, the one error shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_reference import commands, reference
from cli_support import document, fresh, ok, run

from countermark.cli import main
from countermark.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "reference" / "cli.md"
URL = "http://127.0.0.1:8521"
# Rooms and packages that only a command that runs may load: each costs more than the rest of --help together.
HEAVY = ("cedarpy", "cryptography", "sqlite3", "asyncio", "countermark.wiring", "countermark.gate",
         "countermark.audit", "countermark.policy", "countermark_verify")  # fmt: skip


def test_the_reference_is_what_help_says() -> None:
    """docs/reference/cli.md holds the help of every command, word for word."""
    assert PAGE.read_text("utf-8") == reference(), "python tests/cli/cli_reference.py > docs/reference/cli.md"


def test_the_commands_are_those_of_this_stage() -> None:
    """Every command that the operating page names exists, and no other."""
    found = {" ".join(path[1:]) for path in commands(main, ("countermark",)) if len(path) > 1}
    groups = {
        "policy", "mandate", "approvals", "kill", "keys", "audit", "review", "import", "lane", "notify", "payee",
        "people", "token", "console", "hold", "log", "witness", "epoch", "anchor", "runs",
    }  # fmt: skip
    assert found - groups == {
        "run", "runs list", "runs show", "runs cancel",
        "init", "demo", "act", "actions", "explain", "status", "recover", "doctor", "upgrade", "policy check",
        "policy test",
        "policy try", "policy activate", "policy monitored", "policy diff", "policy backtest", "demo anchor",
        "demo incident",
        "audit paths", "audit approved", "mandate grant", "mandate revoke", "mandate show",
        "payee list", "payee show", "payee set", "payee close",
        "mandate accept", "approvals list", "approvals approve", "approvals refuse",
        "kill set", "kill clear", "console link", "keys new", "keys show", "keys prepare", "keys rotate", "keys retire",
        "people list", "people enrol", "people remove",
        "people away", "audit reperform", "export", "epoch close",
        "verify", "bench", "resolve", "reopen", "review list", "review clear", "import paid", "serve", "mcp", "backup",
        "restore", "log proof", "giveup", "anchor deploy", "anchor publish", "anchor show",
        "notify list", "notify dead", "notify retry", "notify test", "notify run",
        "erase", "hold set", "hold clear", "hold list",
        "log publish", "witness init", "witness add", "witness serve", "witness show",
        "lane show", "lane accept", "runs receipt", "runs graph",
        "runs migrate",
        "token issue", "token list", "token rotate", "token revoke",
    }  # fmt: skip
    assert set(COMMANDS) == {name.split()[0] for name in found}


def test_help_loads_no_room_below() -> None:
    """`countermark --help` and the help of a command import click and the command line, nothing heavy."""
    code = (
        "import sys\nfrom countermark.cli import main\n"
        "for words in (['--help'], ['act', '--help'], ['approvals', 'approve', '--help']):\n"
        "    try:\n        main.main(words)\n    except SystemExit as end:\n        assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ("nope",), ("explain",), ("act", "x.json", "--nope"), ("kill", "set", "nothing", "x", "--reason", "r"),
        ("kill", "set", "agent", "--reason", "r"), ("export", "p.zip", "--disclose", "some"),
        ("export", "p.zip", "--at", "0"), ("init",), (),
    ],
)  # fmt: skip
def test_wrong_usage_is_64(words: tuple[str, ...]) -> None:
    """A command line that cannot be meant ends with 64 and says why on standard error."""
    result = run(*words)
    assert result.exit_code == 64
    assert result.stderr


def test_verify_without_a_pack_or_a_demo_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare `verify` takes the last demo; where there was none it says so with 64."""
    monkeypatch.chdir(tmp_path)
    result = run("verify")
    assert result.exit_code == 64
    assert "countermark demo" in result.stderr


def test_an_error_has_one_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1, `error: message [code]` and the hint on standard error, nothing on standard output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COUNTERMARK_DIR", raising=False)
    result = run("status")
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first == "error: no deployment here [bad_config]"
    assert second.startswith("  Use -C DIR")


@pytest.mark.parametrize(
    "words",
    [
        ("-C", URL, "init", "d"), ("-C", URL, "status"), ("init", URL), ("demo", "--dir", URL), ("backup", URL),
        ("restore", "d", URL), ("witness", "init", URL, "--name", "w.example"), ("log", "publish", URL),
    ],
)  # fmt: skip
def test_an_address_is_no_directory(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a directory is named, to be made or not, an address is refused with a hint and none is made."""
    monkeypatch.chdir(tmp_path)
    error = document(run(*words, "--json"), 1)["error"]
    assert (error["code"], error["message"]) == ("bad_config", f"{URL} is an address and no directory")
    assert "countermark.Client(url, token)" in error["hint"]
    assert not list(tmp_path.iterdir())


def test_an_error_with_json_is_one_document(tmp_path: Path) -> None:
    """With --json an error is the one document on standard output, with its code and whether to retry."""
    error = document(run("-C", str(tmp_path), "status", "--json"), 1)["error"]
    assert error["code"] == "bad_config"
    assert error["retryable"] is False
    assert error["hint"]


def test_the_deployment_is_found_by_option_environment_or_upwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-C beats COUNTERMARK_DIR, which beats the nearest countermark.toml upwards."""
    root = fresh(tmp_path).root
    below = root / "policy" / "tests"
    monkeypatch.delenv("COUNTERMARK_DIR", raising=False)
    monkeypatch.chdir(below)
    assert document(run("status", "--json"))["deployment"] == "acme"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUNTERMARK_DIR", str(root))
    assert document(run("status", "--json"))["deployment"] == "acme"
    assert run("-C", str(tmp_path), "status").exit_code == 1


def _terminal(words: list[str], **environment: str) -> str:
    """What a command prints on a terminal."""
    import pty

    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", **environment}
    done = subprocess.run(
        [sys.executable, "-m", "countermark.cli", *words], stdout=slave, stderr=slave, env=env, check=False
    )
    os.close(slave)
    text = os.read(master, 65_536).decode()
    os.close(master)
    assert done.returncode == 1
    return text


def test_colours_appear_on_a_terminal_only_and_not_with_no_color(tmp_path: Path) -> None:
    """Escapes are printed to a terminal, not into a pipe, and never when NO_COLOR is set."""
    environment = dict.fromkeys(("NO_COLOR",), "")
    words = ["-C", str(tmp_path), "status"]
    assert "\x1b[" in _terminal(words, **environment)
    assert "\x1b[" not in _terminal(words, NO_COLOR="1")
    assert "\x1b[" not in run(*words).stderr


def test_version_is_the_packages() -> None:
    """--version names the product and a version."""
    assert ok(run("--version")).startswith("countermark ")


def test_a_new_key_is_private_and_never_replaces_one(tmp_path: Path) -> None:
    """`keys new` writes mode 0600, prints the public half, and refuses a file that exists."""
    path = tmp_path / "clerk.pem"
    made = document(run("keys", "new", str(path), "--json"))
    assert made["public"].startswith("ed25519:")
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert run("keys", "new", str(path)).exit_code == 1
    assert path.read_bytes() == before


def test_the_console_script_runs() -> None:
    """`python -m countermark.cli` is the same command line."""
    done = subprocess.run(
        [sys.executable, "-m", "countermark.cli", "keys", "--help"], capture_output=True, text=True, check=True
    )
    assert "countermark" in done.stdout
    assert json.dumps(done.stderr) == '""'
