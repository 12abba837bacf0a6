"""Commands on a deployment: acting, answering, stopping, looking, exporting."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cli_support import Bench, bench, document, fresh, ok, run

from countermark.cli.act import EXITS


@pytest.fixture
def here() -> Bench:
    return bench()


def escalated(here: Bench, call: str, amount: int = 300_000, **more: object) -> str:
    found = document(here.act(call, amount, "acct_1BorealisHosting", **more), EXITS["escalated"])
    return str(found["escalation"])


def test_act_ends_with_what_happened(here: Bench) -> None:
    """0 confirmed, 3 denied, 4 escalated, 5 unknown, 6 failed; the document is the result."""
    done = document(here.act("ends-1"))
    assert (done["status"], done["code"]) == ("confirmed", "ok")
    assert document(here.act("FAIL-ends"), 6)["code"] == "provider_refused"
    assert document(here.act("LOST-ends"), 5)["status"] == "unknown"
    assert document(here.act("ends-2", 2_600_000), 3)["code"] == "mandate_limit"
    assert document(here.act("ends-3", 1_000, "acct_1Nobody"), 4)["escalation"].startswith("esc_")


def test_asking_again_in_the_same_run_answers_the_same(here: Bench) -> None:
    """With the run named, the same call gives the recorded answer; another amount under its call_id is a conflict."""
    first = document(here.act("again-1"))
    assert document(here.act("again-1", run=first["run"]))["ref"] == first["ref"]
    assert document(here.act("again-1", 47_000, run=first["run"]), 1)["error"]["code"] == "identity_conflict"
    assert document(here.act("again-1"), 3)["code"] == "duplicate_obligation"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[]", "bad_config"),
        ("{}", "bad_config"),
        ('{"call_id": "a", "tool": "t", "args": {}, "more": 1}', "bad_config"),
        ('{"call_id": "a", "tool": "t", "args": []}', "bad_config"),
        ('{"call_id": 1, "tool": "t", "args": {}}', "bad_config"),
        ('{"call_id": "a", "call_id": "b", "tool": "t", "args": {}}', "bad_encoding"),
        ('{"call_id": "a", "tool": "t", "args": {"amount": 1.5}}', "bad_encoding"),
        ('{"call_id": "a", "tool": "t", "args": {"amount": NaN}}', "bad_encoding"),
        ("\ud800", "bad_encoding"),
        ('{"call_id": "a", "tool": "no.such", "args": {}}', "unknown_tool"),
    ],
)
def test_an_action_file_is_read_strictly(here: Bench, tmp_path: Path, text: str, code: str) -> None:
    """Unknown members, wrong types, duplicate keys, floats and bad Unicode are errors with a code; nothing is asked."""
    path = tmp_path / "action.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert document(here.run("act", str(path), "--agent", "treasury", "--json"), 1)["error"]["code"] == code
    assert document(here.run("act", str(tmp_path / "none.json"), "--json"), 1)["error"]["code"] == "bad_config"


def test_an_approver_sees_what_is_sent_and_signs_it(here: Bench) -> None:
    """Amount, payee, account, rules with numbers, the unverified claim and the bytes are shown; then it is paid."""
    name = escalated(here, "approve-1", reason="please\nhurry   \u202e\u3164")
    (row,) = [line for line in ok(here.run("approvals", "list")).splitlines() if name in line]
    assert "invoice approve-1  finance" in row
    words = ("approvals", "approve", name, "--key", here.key("controller"), "--person", "controller")
    text = ok(here.run(*words, stdin="y\n"))
    for part in (
        "3,000.00 EUR", "Borealis Hosting AB (borealis-hosting)", "acct_1BorealisHosting",
        "the amount 3,000.00 EUR is above", "the agent claims (unverified)", "  > please\\u000ahurry \\u202e\\u3164",
        "/v1/transfers", "Idempotency-Key: cm_", "amount=300000", "answer before", "The escalation is approved.",
    ):  # fmt: skip
        assert part in text, part
    assert "The action: confirmed" in text
    assert "\x1b" not in text
    assert document(here.run(*words, "--yes", "--json"), 1)["error"]["code"] == "approval_closed"


def test_saying_no_to_the_question_signs_nothing(here: Bench) -> None:
    """Without a yes nothing is recorded and the escalation still waits."""
    name = escalated(here, "approve-2", 510_000)
    records = document(here.run("status", "--json"))["records"]
    words = ("approvals", "approve", name, "--key", here.key("controller"), "--person", "controller")
    assert here.run(*words, stdin="n\n").exit_code == 1
    assert document(here.run("status", "--json"))["records"] == records
    assert name in ok(here.run("approvals", "list"))


def test_a_refusal_binds_the_obligation(here: Bench) -> None:
    """After a refusal the same invoice is denied, whatever the call."""
    name = escalated(here, "refuse-1", 520_000)
    words = ("approvals", "refuse", name, "--key", here.key("controller"), "--person", "controller", "--yes", "--json")
    assert document(here.run(*words))["state"] == "refused"
    assert document(here.act("refuse-1", 1_000, "acct_1BorealisHosting"), 3)["code"] == "refused_by_person"


def test_who_may_not_answer_is_told_why(here: Bench) -> None:
    """A person without the role, an unknown one, a foreign key and an unasked ladder are refused."""
    name = escalated(here, "refuse-2", 530_000)
    own, other = here.key("controller"), here.key("treasurer")
    for words, code in (
        (("--key", other, "--person", "treasurer"), "approval_not_eligible"),
        (("--key", other, "--person", "nobody"), "not_authorised"),
        (("--key", other, "--person", "controller"), "not_authorised"),
        (("--key", own, "--person", "controller", "--ladder", "board"), "bad_config"),
    ):
        result = here.run("approvals", "approve", name, *words, "--yes", "--json")
        assert document(result, 1)["error"]["code"] == code


def test_a_stop_takes_effect_and_is_lifted_by_a_signature(here: Bench) -> None:
    """After `kill set` the payee is denied; `kill clear` with a person's key lifts it."""
    stopped = document(here.run("kill", "set", "payee", "acme-paper", "--reason", "odd", "--json"))
    assert stopped["in_flight"] == []
    assert document(here.act("kill-1"), 3)["code"] == "killed"
    assert stopped["kill"] in ok(here.run("status"))
    words = ("kill", "clear", stopped["kill"], "--person", "controller", "--json")
    wrong = here.run(*words, "--key", here.key("treasurer"))
    assert document(wrong, 1)["error"]["code"] == "not_authorised"
    assert document(here.run(*words, "--key", here.key("controller")))["cleared"] == stopped["kill"]
    document(here.act("kill-2"))
    assert "controller lifted the stop" in ok(here.run("explain", stopped["kill"]))
    again = document(here.run(*words, "--key", here.key("controller")), 1)["error"]
    assert "was lifted already: controller lifted the stop" in again["message"]
    nothing = document(here.run("kill", "clear", "kill_" + "0" * 16, *words[3:], "--key", here.key("controller")), 1)
    assert nothing["error"]["hint"] == "Stops that stand: none."


def test_a_stop_that_would_stop_nothing_is_refused(here: Bench) -> None:
    """A misspelt name is an error with what there is; an account and the first digits of a mandate are understood."""
    for scope, value in (("agent", "treasry"), ("tool", "stripe"), ("payee", "acme"), ("mandate", "00000000")):
        error = document(here.run("kill", "set", scope, value, "--reason", "r", "--json"), 1)["error"]
        assert "nothing would be stopped" in error["message"]
        assert "Known: " in error["hint"]
    mandate = here.made.mandates["treasury"]
    for scope, value in (("mandate", mandate[7:19]), ("payee", "ba_1OwnBank")):
        name = document(here.run("kill", "set", scope, value, "--reason", "r", "--json"))["kill"]
        (found,) = [kill for kill in document(here.run("status", "--json"))["kills"] if kill["kill"] == name]
        assert found["value"] in (mandate, "own-bank")
        ok(here.run("kill", "clear", name, "--person", "controller", "--key", here.key("controller")))


def test_looking_records_who_looked_and_nothing_else(here: Bench) -> None:
    """status, policy try and mandate show leave the journal as it is; explain and audit reperform add a reading."""
    done = document(here.act("look-1"))
    before = document(here.run("status", "--json"))
    assert before["gate"] == "running"
    assert before["head"]["size"] == before["records"]
    ok(here.run("mandate", "show"))
    ok(here.run("review", "list"))
    args = {"amount": 48_000, "currency": "eur", "destination": "acct_1AcmePaper", "metadata[invoice]": "look-1"}
    action = {"call_id": "try", "tool": "stripe.transfers.create", "args": args}
    tried = document(here.run("policy", "try", "-", "--json", stdin=json.dumps(action)), 3)
    assert (tried["disposition"], tried["code"]) == ("deny", "duplicate_obligation")
    action["args"] = {**args, "metadata[invoice]": "look-2", "amount": 600_000}
    text = ok(here.run("policy", "try", "-", stdin=json.dumps(action)), 4)
    assert "the amount 6,000.00 EUR is above payment_ask_above (5,000.00 EUR)" in text
    assert document(here.run("status", "--json"))["records"] == before["records"]
    ok(here.run("explain", done["action"]))
    report = document(here.run("audit", "reperform", "--json"))
    assert report["ok"], report["found"]
    assert document(here.run("status", "--json"))["records"] == before["records"] + 2
    for seq, what in ((before["records"], "explain"), (before["records"] + 1, "audit")):
        body = document(here.run("explain", f"#{seq}", "--json"))["body"]
        assert (body["what"], body["reader"]) == (what, f"uid:{os.getuid()}")


def test_explain_withholds_unless_asked(here: Bench) -> None:
    """The agent's reason is shown only with --reveal."""
    done = document(here.act("reveal-1", reason="because of the flood"))
    assert "flood" not in ok(here.run("explain", done["action"]))
    assert "flood" in ok(here.run("explain", done["action"], "--reveal"))
    assert document(here.run("explain", done["action"], "--json"))["status"] == "confirmed"
    assert document(here.run("explain", "nothing", "--json"), 1)["error"]["code"] == "unknown_action"


def test_numbers_stand_under_each_other(here: Bench) -> None:
    """In the export's summary every count ends in the same column."""
    text = ok(here.run("export", str(here.made.root / "aligned.zip")))
    counts = [line for line in text.splitlines() if re.match(r"  (records|policies|disclosed|withheld|erased) ", line)]
    assert len({len(line) for line in counts}) == 1
    assert len(counts) == 5


def test_a_pack_is_exported_and_checked(here: Bench, tmp_path: Path) -> None:
    """A pack of the newest head is incomplete without trust, and one with a changed byte is refuted or unreadable."""
    document(here.act("pack-1", reason="the invoice is due"))
    pack = tmp_path / "evidence.zip"
    made = document(here.run("export", str(pack), "--disclose", "all", "--json"))
    assert made["disclosed"] > 0
    assert document(run("verify", str(pack), "--json"), 2)["verdict"] == "incomplete"
    changed = tmp_path / "changed.zip"
    shutil.copy(pack, changed)
    raw = bytearray(changed.read_bytes())
    at = raw.find(b'"reason":"')
    raw[at + 11] ^= 1
    changed.write_bytes(raw)
    assert run("verify", str(changed)).exit_code in (1, 3)
    assert run("verify", str(tmp_path / "none.zip")).exit_code == 3
    error = document(here.run("export", str(tmp_path / "late.zip"), "--at", "999999", "--json"), 1)["error"]
    assert error["code"] == "bad_pack"
    assert f"--at {document(here.run('status', '--json'))['records']}" in error["hint"]
    assert zipfile.is_zipfile(pack)


def test_a_mandate_is_granted_shown_and_ended(tmp_path: Path) -> None:
    """A short file becomes a whole signed mandate with pseudonyms of what is named; its end stops what is below it."""
    made = fresh(tmp_path)
    here = ("-C", str(made.root))
    key = str(made.people["treasurer"])
    short = {
        "principal": "treasurer", "agent": "treasury", "purpose": "november", "payees": ["acme-paper"],
        "limits": [{"currency": "eur", "amount": 100_000, "over_us": 86_400_000_000}], "named": ["INV-1"], "days": 30,
    }  # fmt: skip
    granted = document(run(*here, "mandate", "grant", "-", "--key", key, "--json", stdin=json.dumps(short)))
    text = ok(run(*here, "mandate", "show"))
    assert "1,000.00 EUR in any 1 day" in text
    assert "november" in text
    assert "INV-1" not in text
    other = ("mandate", "grant", "-", "--key", str(made.people["controller"]), "--json")
    assert document(run(*here, *other, stdin=json.dumps(short)), 1)["error"]["code"] == "not_authorised"
    for wrong in ({**short, "days": 0}, {**short, "named": "INV-1"}, {**short, "nonce": "x"}, {"agent": "treasury"}):
        assert document(run(*here, *other, stdin=json.dumps(wrong)), 1)["error"]["code"] == "bad_config"
    digest = granted["mandate"]
    words = ("mandate", "revoke", digest[7:19], "--key", key, "--person", "treasurer", "--json")
    assert document(run(*here, *words)) == {"revoked": digest, "in_flight": []}
    (found,) = [row for row in document(run(*here, "mandate", "show", "--json")) if row["mandate"] == digest]
    assert found["revoked"]
    assert not found["in_force"]
    for wrong in ("abc", "0" * 12):
        assert run(*here, "mandate", "revoke", wrong, "--key", key, "--person", "treasurer").exit_code == 1


def test_a_policy_is_checked_tested_and_put_in_force(tmp_path: Path) -> None:
    """check and test end with 1 on what is wrong; activate refuses failing tests, a wrong author and a stranger."""
    made = fresh(tmp_path)
    here = ("-C", str(made.root), "policy")
    limits = made.root / "policy" / "limits.toml"
    key = ("--key", str(made.people["treasurer"]), "--json")
    assert document(run(*here, "check", "--json"))["bundle"] == made.bundle
    assert document(run(*here, "test", "--json"))["failed"] == 0
    text = limits.read_text("utf-8")
    limits.write_text(text.replace("max = 2500000", "max = 1000"), "utf-8")
    assert run(*here, "test").exit_code == 1
    assert document(run(*here, "activate", "--author", "treasurer", *key), 1)["error"]["code"] == "bad_policy"
    limits.write_text(text.replace("max = 2500000", "mex = 1000"), "utf-8")
    assert "limits.toml" in ok(run(*here, "check"), 1)
    assert document(run(*here, "test", "--json"), 1)["error"]["code"] == "bad_policy"
    limits.write_text(text.replace("max = 5000000", "max = 4990000"), "utf-8")
    assert document(run(*here, "activate", "--author", "controller", *key), 1)["error"]["code"] == "not_authorised"
    done = document(run(*here, "activate", "--author", "treasurer", *key))
    assert done["previous"].startswith("sha256:")
    assert done["previous"] != made.bundle, "the record of the activation before, not its bundle"
    assert done["activator"] == "treasurer"
    assert document(run("-C", str(made.root), "status", "--json"))["bundle"] == done["bundle"]
    stranger = tmp_path / "stranger.pem"
    ok(run("keys", "new", str(stranger)))
    words = ("activate", "--author", "treasurer", "--key", str(stranger), "--json")
    assert document(run(*here, *words), 1)["error"]["code"] == "not_authorised"


def test_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    """A sound deployment passes; a readable key, a missing vault, a changed record and a foreign log key are found."""
    made = fresh(tmp_path)
    here = ("-C", str(made.root), "doctor", "--json")
    assert document(run(*here))["ok"]

    def wrong() -> set[str]:
        return {check["name"] for check in document(run(*here), 1)["checks"] if check["state"] == "wrong"}

    key = made.root / "keys" / "vault.key"
    key.chmod(0o644)
    assert {"files", "keys"} <= wrong()
    key.chmod(0o600)
    vault = made.root / "data" / "vault.db"
    vault.rename(tmp_path / "vault.db")
    assert {"files", "keys"} <= wrong()
    (tmp_path / "vault.db").rename(vault)
    log = made.root / "keys" / "log.pem"
    log.rename(tmp_path / "log.pem")
    ok(run("keys", "new", str(log)))
    assert {"keys", "journal", "high-water"} <= wrong()
    (tmp_path / "log.pem").replace(log)
    database = sqlite3.connect(made.root / "data" / "journal.db")
    database.execute("update record set raw = cast(replace(cast(raw as text), 'first', 'other') as blob) where seq = 2")
    database.commit()
    database.close()
    assert "journal" in wrong()


def test_init_makes_a_deployment_once(tmp_path: Path) -> None:
    """init prints what belongs to whom; a directory that is not empty is refused; both templates work."""
    for template in ("vendor-payments", "banking"):
        root = tmp_path / template
        made = document(run("init", str(root), "--template", template, "--deployment", "acme", "--json"))
        assert made["deployment"] == "acme"
        assert all(Path(path).stat().st_mode & 0o777 == 0o600 for path in made["people"].values())
        assert document(run("-C", str(root), "policy", "test", "--json"))["failed"] == 0
        assert document(run("init", str(root), "--json"), 1)["error"]["code"] == "bad_config"
    assert "Nothing to do" in ok(run("-C", str(tmp_path / "banking"), "upgrade"))
    assert document(run("-C", str(tmp_path / "banking"), "upgrade", "--json"))["schema"] >= 1


def test_a_file_that_is_no_json_says_where(here: Bench, tmp_path: Path) -> None:
    """The error names the file, and line and column in its hint."""
    file = tmp_path / "bad.json"
    file.write_text('{"call_id": "a",\n "tool": }')
    error = document(here.run("act", str(file), "--json"), 1)["error"]
    assert error["code"] == "bad_encoding"
    assert error["message"].startswith(f"{file}: ")
    assert error["hint"].startswith("Line 2, column 10:")


def test_an_extract_of_nothing_says_so(here: Bench, tmp_path: Path) -> None:
    """An agent that nobody had, and a day that has not begun, are told beside the pack."""
    result = here.run("export", str(tmp_path / "e.zip"), "--agent", "nobody", "--day", "2100-01-01")
    ok(result)
    assert "No agent 'nobody' was ever recorded here" in result.stderr
    assert "2100-01-01 has not begun in Europe/Berlin" in result.stderr


def test_a_directory_that_is_not_there_is_said_before_rooms_are_loaded(tmp_path: Path) -> None:
    """With -C and no such directory no command needs the policy's or the auditor's modules."""
    code = (
        "import sys; sys.argv=['countermark','-C',{!r},'status']\nfrom countermark.cli import main\ntry: main()\n"
        "except SystemExit as end: print(end.code, any(m.startswith('countermark.policy') for m in sys.modules))"
    ).format(str(tmp_path / "nowhere"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
    assert "there is no directory" in done.stderr


def test_the_log_is_published_by_a_light_program(here: Bench, tmp_path: Path) -> None:
    """Run by a timer beside the gate, `log publish` loads no policy, no witness, no chain and no order of people."""
    words = ["-C", str(here.made.root), "log", "publish", str(tmp_path / "public")]
    rooms = ("policy", "gate", "audit", "publish.anchor", "publish.witness", "authority.mandate")
    code = (
        f"import sys\nfrom countermark.cli import main\ntry: main({words!r})\n"
        f"except SystemExit as end: print(end.code, [r for r in {rooms!r} if 'countermark.' + r in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert (tmp_path / "public" / "checkpoint").is_file()
