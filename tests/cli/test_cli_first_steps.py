"""What somebody new runs into: asking again, several mandates, missing secrets, interrupted demos, packs in the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_support import TOOL, Bench, bench, document, fresh, ok, run

from countermark.cli import base, start
from countermark.connectors import StripeConnector
from countermark.model.tool import ToolSpec
from countermark.model.values import Outcome, Request
from countermark.wiring import demo
from countermark.wiring.connectors import STRIPE_ORIGIN
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import init_deployment

ARGS = {"amount": 300_000, "currency": "eur", "destination": "acct_1BorealisHosting"}
NOBODY = "http://127.0.0.1:9"  # the discard port: nobody answers there


@pytest.fixture
def here() -> Bench:
    return bench()


def _runs(here: Bench) -> int:
    return int(document(here.run("status", "--json"))["runs"])


def test_a_minted_run_ends_with_a_final_answer_and_is_named_otherwise(here: Bench) -> None:
    """Confirmed, denied, failed and malformed leave no open run; escalated and unknown leave one, and say its name."""
    before = _runs(here)
    ok(here.act("run-1"))
    ok(here.act("run-2", 2_600_000), 3)
    ok(here.act("FAIL-run"), 6)
    ok(here.act("run-3", "x"), 1)
    assert _runs(here) == before
    found = document(here.act("run-4", 1_000, "acct_1Stranger"), 4)
    assert "the same run and call_id" in found["next_step"]
    assert _runs(here) == before + 1
    again = document(here.act("run-4", 1_000, "acct_1Stranger", run=found["run"]), 4)
    assert again["escalation"] == found["escalation"]
    args = {**ARGS, "amount": 1_000, "destination": "acct_1AcmePaper", "metadata[invoice]": "LOST-5"}
    action = {"call_id": "run-5", "tool": TOOL, "args": args}
    text = ok(here.run("act", "-", stdin=json.dumps(action)), 5)
    assert 'ask again with "run": "run_' in text


def test_an_action_needs_a_name(here: Bench) -> None:
    """An empty call_id is refused before anything is asked: a random one could not be asked for again."""
    error = document(here.run("act", "-", "--json", stdin=json.dumps({"call_id": "", "tool": TOOL, "args": {}})), 1)
    assert "call_id" in error["error"]["message"]


def test_several_mandates_are_told_apart_by_name(tmp_path: Path) -> None:
    """With two mandates act and policy try name --mandate; with it the run stands under the one that was named."""
    made = fresh(tmp_path)
    here = ("-C", str(made.root))
    short = {
        "principal": "treasurer", "agent": "treasury", "purpose": "second", "tools": ["stripe.transfers.create", "x.y"],
        "payees": ["acme-paper", "nobody-here"], "limits": [{"currency": "usd", "amount": 100, "over_us": None}],
    }  # fmt: skip
    words = ("mandate", "grant", "-", "--key", str(made.people["treasurer"]), "--json")
    granted = document(run(*here, *words, stdin=json.dumps(short)))
    assert granted["warnings"] == [
        f"the policy in force has no {name}" for name in ("tool x.y", "payee nobody-here", "currency usd")
    ]
    action = json.dumps({"call_id": "m-1", "tool": TOOL, "args": {**ARGS, "amount": 5, "metadata[invoice]": "m-1"}})
    for command in (("act",), ("policy", "try")):
        error = document(run(*here, *command, "-", "--json", stdin=action), 1)["error"]
        assert error["code"] == "mandate_ambiguous"
        assert "--mandate" in error["hint"]
        named = (*command, "-", "--mandate", granted["mandate"][7:19], "--json")
        assert document(run(*here, *named, stdin=action), 3)["code"] == "mandate_payee"
    with_run = json.dumps({**json.loads(action), "run": "run_" + "0" * 32})
    assert run(*here, "act", "-", "--mandate", granted["mandate"], stdin=with_run).exit_code == 64


def _parked(made_root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_x")
    action = {"call_id": "p-1", "tool": TOOL, "args": {**ARGS, "amount": 600_000, "metadata[invoice]": "p-1"}}
    found = document(run("-C", str(made_root), "act", "-", "--json", stdin=json.dumps(action)), 4)
    return str(found["escalation"])


def test_an_approval_is_not_used_up_where_nothing_can_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a gate and without the secret, or with another origin, approve stops first; then the outcome says why."""
    made = init_deployment(tmp_path / "d", "vendor-payments", "acme", stripe_origin=NOBODY)
    name = _parked(made.root, monkeypatch)
    here = ("-C", str(made.root))
    words = (*here, "approvals", "approve", name, "--key", str(made.people["controller"]), "--person", "controller")
    monkeypatch.delenv("STRIPE_API_KEY")
    records = document(run(*here, "status", "--json"))["records"]
    assert document(run(*words, "--yes", "--json"), 1)["error"]["code"] == "missing_secret"
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_x")
    config = made.root / "countermark.toml"
    text = config.read_text("utf-8")
    config.write_text(text.replace(NOBODY, STRIPE_ORIGIN), "utf-8")
    assert document(run(*words, "--yes", "--json"), 1)["error"]["code"] == "other_origin"
    assert "[other_origin]" in ok(run(*here, "doctor"))
    config.write_text(text, "utf-8")
    assert document(run(*here, "status", "--json"))["records"] == records
    assert "3 tools can be sent" in ok(run(*here, "doctor"))
    told = ok(run(*words, stdin="y\n"), 6)
    for part in ("Approve and send exactly this now", "failed [not_sent] Nothing was sent", "amount   6,000.00 EUR"):
        assert part in told, part
    assert "no connection to the provider came about" in ok(run(*here, "explain", name))


def test_an_aborted_question_and_wrong_usage_are_documents_too(here: Bench) -> None:
    """With --json a no to the question and a command line that cannot be meant print one document each."""
    found = document(here.act("abort-1", 1_000, "acct_1Abort"), 4)
    words = ("approvals", "approve", found["escalation"], "--key", here.key("controller"), "--person", "controller")
    assert document(here.run(*words, "--json", stdin="n\n"), 1)["error"]["code"] == "aborted"
    assert document(here.run("act", "--json"), 64)["error"]["code"] == "bad_usage"
    assert here.run("kill", "set", "deployment", "more", "--reason", "r").exit_code == 64


@pytest.mark.parametrize(
    ("origin", "key", "reason"),
    [(NOBODY, "sk", "no_connection"), (NOBODY, "", "missing_secret"), ("https://other.invalid", "sk", "other_origin")],
)
def test_what_was_not_sent_says_why(origin: str, key: str, reason: str) -> None:
    """The connector's reason stands in the outcome's request_id, as the barrier's reasons do."""
    connector = StripeConnector(lambda _: key, origin)
    tool = connector.tools()[0]
    request = Request("POST", f"{NOBODY}/v1/transfers", (("Idempotency-Key", "cm_1"),), b"amount=1")
    outcome = connector.execute(tool, request)
    assert (outcome.status, outcome.code, outcome.request_id) == ("failed", "not_sent", reason)


class Outage(StripeConnector):
    """A provider that answers nothing at first, and then knows the payment."""

    answers = False

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        return Outcome("unknown", "timeout")

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        return Outcome("confirmed", "found", ref="tr_1") if self.answers else Outcome("unknown", "timeout")


def test_recover_settles_what_the_provider_knows(tmp_path: Path) -> None:
    """recover exits 5 and names what stays unknown; when the provider knows the payment it is settled, and 0."""
    provider = Outage(lambda _: "sk")
    made = init_deployment(tmp_path / "d", "vendor-payments", "acme", connectors={"stripe": provider})
    here = ("-C", str(made.root))
    with open_deployment(made.root, agent="treasury", connectors={"stripe": provider}) as handle:
        args = {**ARGS, "amount": 1_000, "metadata[invoice]": "r-1"}
        name = handle.act(TOOL, args, call_id="r-1").action
        found = document(run(*here, "recover", "--wait", "0", "--json"), 5)
        assert found == {"settled": [], "unknown": [name]}
        assert f"unknown {name}" in ok(run(*here, "recover", "--wait", "0"), 5)
        provider.answers = True
        found = document(run(*here, "recover", "--json"))
        assert found["settled"] == [{"action": name, "status": "confirmed", "code": "found", "ref": "tr_1"}]
        assert "Nothing was open" in ok(run(*here, "recover"))


def test_a_pack_is_replaced_only_by_force_and_its_root_fits_a_trust_file(here: Bench, tmp_path: Path) -> None:
    """A pack in the way is refused; export's root is the base64 of status just before, as a trust file takes it."""
    pack = tmp_path / "evidence.zip"
    head = document(here.run("status", "--json"))["head"]
    made = document(here.run("export", str(pack), "--json"))
    assert (made["size"], made["root"]) == (head["size"], head["root"])
    assert len(head["root"]) == 44
    assert document(here.run("status", "--json"))["head"]["size"] == head["size"] + 1  # the record of the reading
    assert document(here.run("export", str(pack), "--json"), 1)["error"]["code"] == "bad_config"
    ok(here.run("export", str(pack), "--force"))


def test_the_banking_deployment_has_no_stripe_and_doctor_says_what_is_missing(tmp_path: Path) -> None:
    """init names only connectors that the template uses; doctor warns that the bank's is the user's to bring."""
    made = document(run("init", str(tmp_path / "bank"), "--template", "banking", "--json"))
    assert "stripe" not in (tmp_path / "bank" / "countermark.toml").read_text("utf-8")
    told = ok(run("-C", made["directory"], "doctor"))
    assert "no connector recorded is configured here" in told
    action = {"call_id": "b", "tool": "get_balance", "args": {}}
    error = document(run("-C", made["directory"], "act", "-", "--json", stdin=json.dumps(action)), 1)["error"]
    assert error["code"] == "unknown_tool"
    assert "countermark doctor" in error["hint"]


def test_a_simulator_is_named_when_a_deployment_is_made(tmp_path: Path) -> None:
    """With --stripe-origin policy and configuration name that address alone; plain http goes to this machine only."""
    root = tmp_path / "d"
    words = ("init", str(root), "--stripe-origin")
    assert document(run(*words, "http://stripe.example", "--json"), 1)["error"]["code"] == "bad_config"
    assert not root.exists()
    ok(run(*words, NOBODY))
    for name in ("countermark.toml", "policy/tools.toml"):
        text = (root / name).read_text("utf-8")
        assert NOBODY in text
        assert STRIPE_ORIGIN not in text
    assert ok(run("-C", str(root), "policy", "check"))
    assert "deployment already" in document(run(*words, NOBODY, "--json"), 1)["error"]["message"]
    banking = ("init", str(tmp_path / "b"), "--template", "banking", "--stripe-origin", NOBODY, "--json")
    assert "does not use Stripe" in document(run(*banking), 1)["error"]["message"]


def test_init_writes_nothing_before_it_knows_the_name(tmp_path: Path) -> None:
    """A name that no record could carry is refused before anything is made."""
    assert document(run("init", str(tmp_path / "x"), "--deployment", "Acme Ltd", "--json"), 1)["error"]["hint"]
    assert not (tmp_path / "x").exists()


def test_toml_that_is_none_is_the_only_finding(tmp_path: Path) -> None:
    """A syntax error is reported alone: everything that it hides would only be noise."""
    made = fresh(tmp_path)
    limits = made.root / "policy" / "limits.toml"
    limits.write_text(limits.read_text("utf-8").replace("[payment]", "[payment"), "utf-8")
    report = document(run("-C", str(made.root), "policy", "check", "--json"), 1)
    assert [finding["code"] for finding in report["findings"]] == ["bad_toml"]


def test_a_record_is_written_the_same_everywhere(here: Bench) -> None:
    """policy try says #39 where a reason is a record; explain takes #39, seq:39 and 39; only its head differs."""
    done = document(here.act("seq-1"))
    seq = done["receipt"]["decided_seq"]
    args = {"amount": 48_000, "currency": "eur", "destination": "acct_1AcmePaper", "metadata[invoice]": "seq-1"}
    text = ok(here.run("policy", "try", "-", stdin=json.dumps({"call_id": "s", "tool": TOOL, "args": args})), 3)
    assert f"  #{seq}" in text
    told = [
        ok(here.run("explain", name)).split("the newest signed head covers ")
        for name in (f"#{seq}", f"seq:{seq}", str(seq))
    ]
    assert len({story for story, _ in told}) == 1
    covered = [int(size.split()[0].replace(",", "")) for _, size in told]
    assert covered == list(range(covered[0], covered[0] + 3))  # each explanation is itself a record


def test_the_demo_says_what_is_in_its_way(tmp_path: Path) -> None:
    """A file, or a directory that is no demo's, is an error with a code; one with the mark of a broken demo is not."""
    file = tmp_path / "README.md"
    file.write_text("text", "utf-8")
    for wrong in (file, tmp_path, file / "below"):
        error = document(run("demo", "--dir", str(wrong), "--json"), 1)["error"]
        assert error["code"] in ("bad_config", "read_only")
    assert file.read_text("utf-8") == "text"


def test_a_demo_that_was_interrupted_makes_room_for_the_next(tmp_path: Path) -> None:
    """What carries the demo's mark is cleared of what a demo makes, and of nothing else."""
    (tmp_path / demo.MARK).touch()
    (tmp_path / "mine.txt").touch()
    (tmp_path / "deployment" / "data").mkdir(parents=True)
    demo.clean(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {demo.MARK, "mine.txt"}


def test_a_benchmark_that_cannot_write_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory in which nothing can be written is an error with a code, no traceback."""
    monkeypatch.setattr(Path, "cwd", lambda: tmp_path / "gone")
    assert document(run("bench", "--quick", "--json"), 1)["error"]["code"] == "read_only"


def test_long_lines_are_folded_on_a_terminal_and_quotes_stay_quotes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On 40 columns a rule goes on under itself, a claim keeps its mark; into a pipe nothing is folded."""
    rule, quote = "  rule: " + "word " * 12 + "end", "  > " + "claim " * 12 + "end"
    base.folded(rule)
    assert capsys.readouterr().out == rule + "\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    base.folded(rule)
    base.folded(quote)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert {line[:4] for line in lines[1:]} == {"    ", "  > "}
    assert sum(line.startswith("  > ") for line in lines) == 3


def test_the_next_command_works_as_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `uv run`, and where no countermark is on the path, the demo names `uv run countermark`."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.delenv("UV", raising=False)
    assert start._typed() == "countermark"
    monkeypatch.setenv("UV", "/bin/uv")
    assert start._typed() == "uv run countermark"
    monkeypatch.delenv("UV")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert start._typed() == "uv run countermark"
