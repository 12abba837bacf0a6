"""The pages of payments, limits, agents, policy, evidence and health: what they say, to whom, and to no one else."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from rig import ACME, TOOL, pay
from stage import Stage
from visitor import Visitor, fields_of, text_of

from countermark.journal import SqliteStore
from countermark.model.errors import GateHaltedError
from countermark.server.console.books import Books

PAGES = ("/payments", "/runs", "/limits", "/agents", "/policy", "/evidence", "/health")
PEOPLE = ("treasurer", "controller", "chief", "auditor", "visitor")
HOSTILE = "<script>alert(1)</script>\u202e\"'><img src=x onerror=alert(1)>{{ 7*7 }}"
WAIT_S = 60


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "d")
    yield made
    made.stop()


def main_of(visitor: Visitor, target: str) -> str:
    """The main part of a page that must be there, as a browser reads its text."""
    answer = visitor.get(target)
    assert answer.status == 200, answer.body
    return text_of(answer).partition('<main id="main"')[2].partition("</main>")[0]


def readings(stage: Stage) -> list[dict[str, Any]]:
    store = SqliteStore(stage.root / "data" / "journal.db", readonly=True)
    try:
        return [dict(record.body) for record in store.records() if record.kind == "log.read"]
    finally:
        store.close()


def finished(visitor: Visitor, target: str, busy: str) -> str:
    """The part of a page when what runs behind it has ended."""
    for _ in range(WAIT_S * 5):
        page = text_of(visitor.poll(target))
        if busy not in page:
            return page
        time.sleep(0.2)
    raise AssertionError(page)


# Who may see what ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/payments/act_" + "0" * 32, "/evidence/pack/x.zip"])
def test_nobody_sees_a_page_without_a_session(stage: Stage, path: str) -> None:
    """Whoever is not signed in is sent to sign in, and sees nothing."""
    answer = stage.visitor().get(path)
    assert (answer.status, answer.body) == (303, b"")
    assert answer.headers["location"].startswith("/login")


@pytest.mark.parametrize(
    "path", ["/limits/now", "/runs/now", "/health/now", "/policy/draft", "/evidence/pack", "/building"]
)
def test_a_part_that_refreshes_itself_is_for_nobody_else(stage: Stage, path: str) -> None:
    """A poll without a session gets no content, only the way to sign in."""
    answer = stage.visitor().poll(path)
    assert (answer.status, answer.body) == (401, b"")


@pytest.mark.parametrize("person", PEOPLE)
def test_everybody_enrolled_sees_every_page(stage: Stage, person: str) -> None:
    """Each page is there for each role, empty as a new deployment is."""
    visitor = stage.visitor(person)
    for path in PAGES:
        assert visitor.get(path).status == 200, path


def test_what_a_role_does_not_permit_is_refused(stage: Stage) -> None:
    """Packs are for auditors and operators, sealed values for whoever answers or checks, doctor for operators."""
    action = pay(stage.handle, 1, 48_000, reason="because").action
    forms = {
        "/evidence/pack": {"treasurer", "auditor"}, "/health/doctor": {"treasurer"},
        f"/payments/{action}/values": {"treasurer", "controller", "auditor"},
        "/policy/draft": {"treasurer", "controller", "auditor"},
    }  # fmt: skip
    for person in ("treasurer", "controller", "auditor", "visitor"):
        visitor = stage.visitor(person)
        token = visitor.token("/agents")
        for target, who in forms.items():
            body = {"token": token}
            if target == "/evidence/pack":
                body["size"] = "999999"
            elif target == "/policy/draft":
                body["what"] = "tests"
            answer = visitor.post(target, body)
            assert (answer.status != 403) == (person in who), (person, target, answer.status)


def test_a_form_of_another_page_does_nothing(stage: Stage) -> None:
    """A stop, an order and a file are taken from our own page of this browser alone."""
    visitor = stage.visitor("controller")
    token = visitor.token("/agents")
    body = {"kind": "deployment", "reason": "x"}
    assert visitor.post("/agents/stop", body).status == 403
    assert visitor.post("/agents/stop", {**body, "token": "0" * 43}).status == 403
    assert visitor.post("/agents/stop", {**body, "token": token}, Origin="http://evil.example").status == 403
    for headers in (
        {},
        {"X_Countermark_Token": "0" * 43},
        {"X_Countermark_Token": token, "Origin": "http://e.example"},
    ):
        sent = {"Content_Type": "application/octet-stream", "Origin": visitor.origin, "Sec_Fetch_Site": "same-origin"}
        assert visitor.ask("POST", "/evidence/check", b"\0\0\0\0zip", **{**sent, **headers}).status == 403
    assert stage.handle.call("status", {})["kills"] == []


# Payments --------------------------------------------------------------------------------------------


def test_the_list_shows_and_filters(stage: Stage) -> None:
    """Every payment stands there with what became of it, and a filter leaves exactly those that fit."""
    stage.provider.script.extend(["", "", "refused"])
    for number, amount in ((1, 48_000), (2, 240_000), (3, 12_000)):
        pay(stage.handle, number, amount)
    stage.ask_people(4)
    pay(stage.handle, 5, 2_600_000)
    visitor = stage.visitor("controller")
    page = main_of(visitor, "/payments")
    for said in ("480.00 EUR", "2,400.00 EUR", "120.00 EUR", "6,000.00 EUR", "26,000.00 EUR", "invoice INV-1"):
        assert said in page
    assert page.index("26,000.00") < page.index("6,000.00") < page.index("480.00 EUR")

    def found(query: str) -> set[str]:
        return set(re.findall(r"invoice (INV-\d)", main_of(visitor, f"/payments?{query}")))

    assert found("status=failed") == {"INV-3"}
    assert found("status=waiting") == {"INV-4"}
    assert found("disposition=flag") == {"INV-2"}
    assert found("text=inv-5") == found("status=denied") == {"INV-5"}
    assert found("payee=acme-paper&status=confirmed") == {"INV-1", "INV-2"}
    assert found("agent=nobody") == set()
    assert "Nothing fits" in main_of(visitor, "/payments?agent=nobody")
    for wrong in ("status=paid", "day=yesterday", "before=x", "text=" + "x" * 200, "unknown=1"):
        assert visitor.get(f"/payments?{wrong}").status == 400, wrong


def test_pages_of_the_list_do_not_move(stage: Stage) -> None:
    """The cursor of the next page leads to the same payments, whatever was paid meanwhile."""
    for number in range(60):
        pay(stage.handle, number, 1_000)
    visitor = stage.visitor("controller")
    older = re.search(r'id="older" rel="next" href="([^"]+)"', main_of(visitor, "/payments"))
    assert older is not None
    for number in range(60, 70):
        pay(stage.handle, number, 1_000)
    found = re.findall(r"invoice INV-(\d+)<", main_of(visitor, older[1]))
    assert found == [str(number) for number in range(9, -1, -1)]


def test_one_payment_is_told_to_its_end(stage: Stage) -> None:
    """Who asked, which rule with which numbers, who answered with which key, what the provider said, the digests."""
    stage.ask_people(7)
    asked = stage.waiting()[0]
    from countermark.authority import build_approval, sign_approval

    document = build_approval(
        asked, deployment=stage.made.deployment, ladder="finance", verdict="approve", person="controller"
    )
    stage.handle.call("answer", sign_approval(document, stage.private("controller")))
    page = main_of(stage.visitor("auditor"), f"/payments/{asked['id']}")
    plain = re.sub(r"<[^>]+>", "", page)
    for said in (
        "treasury asked for 6,000.00 EUR", "the amount 6,000.00 EUR is above payment_ask_above (5,000.00 EUR)",
        "Cleo Controller (controller) approved", "with a key file", "Done: the provider confirmed it",
        "No witness is configured", "signed an answer over these exact digests", "gate observed", "The same as a table",
    ):  # fmt: skip
        assert said in plain, said
    for digest in (asked["action"], asked["request"], asked["bundle"]):
        assert digest in plain
    assert '<svg class="path" role="img"' in page
    assert '<title id="path-title">' in page


def test_what_an_agent_writes_stays_text(stage: Stage) -> None:
    """Markup, direction marks and template marks of an agent are shown as characters, in the list and on the page."""
    handle = stage.handle
    result = handle.act(
        TOOL, {"amount": 1_000, "currency": "eur", "destination": ACME, "metadata[invoice]": "INV-9"}, call_id="h1",
        reason=HOSTILE, because=(),
    )  # fmt: skip
    handle.call("kill.set", {"kind": "agent", "value": "treasury", "reason": "<b>x</b>"})
    visitor = stage.visitor("controller")
    token = visitor.token("/agents")
    opened = visitor.post(f"/payments/{result.action}/values", {"token": token})
    assert opened.status == 200
    raw = opened.body.decode()
    assert "<script>alert" not in raw
    assert "<img" not in raw.partition("<main")[2]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in raw
    assert "{{ 7*7 }}" in raw
    assert "49" not in re.sub(r"\d{4,}|[0-9a-f]{16,}", "", raw.partition("unverified")[2][:400])
    assert "<b>x</b>" not in visitor.get("/agents").body.decode()
    hostile = visitor.get("/payments?text=%3Cscript%3Ealert(1)%3C/script%3E&payee=%22%3E%3Cb%3E")
    assert hostile.status == 200
    assert b"<script>alert" not in hostile.body
    assert b'"><b>' not in hostile.body


def test_sealed_values_are_opened_by_a_button_that_is_recorded(stage: Stage) -> None:
    """An agent's reason is not on the page; whoever may see it presses a button, and that stands in the log."""
    action = pay(stage.handle, 1, 48_000, reason="the landlord insists").action
    visitor = stage.visitor("controller")
    page = main_of(visitor, f"/payments/{action}")
    assert "landlord" not in page
    assert "kept encrypted" in page
    fields = fields_of(page, f"/payments/{action}/values")
    assert "the landlord insists" in text_of(visitor.post(f"/payments/{action}/values", fields))
    found = [one for one in readings(stage) if one["reader"] == "person:controller"]
    assert [one["what"] for one in found] == ["explain", "explain"]
    assert "Show them" not in main_of(stage.visitor("visitor"), f"/payments/{action}")


def test_looking_is_recorded_once_not_with_every_page(stage: Stage) -> None:
    """The list is recorded once an hour for a session, one payment once, a page that refreshes itself never."""
    action = pay(stage.handle, 1, 48_000).action
    visitor = stage.visitor("auditor")
    for _ in range(3):
        main_of(visitor, "/payments")
        main_of(visitor, f"/payments/{action}")
        for path in ("/limits/now", "/health/now", "/policy/draft"):
            assert visitor.poll(path).status == 200
    found = [one for one in readings(stage) if one["reader"] == "person:auditor"]
    assert [one["what"] for one in found] == ["explain", "explain"]
    assert found[0]["from"] == 0


def test_what_cannot_be_recorded_is_not_shown(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reading cannot be recorded, the list is an error page and no payment stands on it."""
    pay(stage.handle, 1, 48_000)

    async def halted(*_: object) -> None:
        raise GateHaltedError("the disk is full")

    monkeypatch.setattr(Books, "note", halted)
    answer = stage.visitor("controller").get("/payments")
    assert answer.status == 503
    assert b"480.00" not in answer.body


def test_a_payment_that_there_is_not(stage: Stage) -> None:
    """An ID of nothing, or no ID at all, is a page that says so."""
    visitor = stage.visitor("controller")
    for name in ("act_" + "0" * 32, "nothing", "act_" + "g" * 32, "%2e%2e%2fetc"):
        assert visitor.get(f"/payments/{name}").status == 404, name


def test_a_long_journal_says_that_it_is_being_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the daybook is far behind, the page says how far it is, and then comes by itself."""
    from countermark.server.console import books

    for number in range(5):
        pay(stage.handle, number, 1_000)
    monkeypatch.setattr(books, "LAG_MAX", -1)
    visitor = stage.visitor("controller")
    assert "is being made" in main_of(visitor, "/payments")
    assert "records are read" in text_of(visitor.poll("/building"))
    monkeypatch.setattr(books, "LAG_MAX", 20_000)
    assert visitor.poll("/building").headers["hx-refresh"] == "true"
    assert "10.00 EUR" in main_of(visitor, "/payments")


# Limits, agents, policy, health ----------------------------------------------------------------------


def test_limits_say_used_held_and_free(stage: Stage) -> None:
    """What was paid stands in every window that counts it, with what is left and when some of it falls out."""
    pay(stage.handle, 1, 100_000)
    plain = re.sub(r"<[^>]+>", "", main_of(stage.visitor("visitor"), "/limits"))
    assert "1,000.00 EUR used" in plain
    assert "8,999,000.00 EUR free" in plain
    assert "1 payment used" in plain
    assert "leave the window on" in plain
    assert "never more than 25,000.00 EUR" in plain


def test_what_is_under_way_is_held(stage: Stage) -> None:
    """An effect without an answer yet stands under held, and on the page of health as under way."""
    import threading

    stage.provider.script.append("hold")
    worker = threading.Thread(target=pay, args=(stage.handle, 1, 100_000))
    worker.start()
    try:
        assert stage.provider.held.acquire(timeout=WAIT_S)
        visitor = stage.visitor("controller")
        assert "1,000.00 EUR held" in re.sub(r"<[^>]+>", "", main_of(visitor, "/limits"))
        assert "1 intent without an outcome" in main_of(visitor, "/health")
        assert ">pending<" in main_of(visitor, "/payments")
    finally:
        stage.provider.go.set()
        worker.join()


def test_anybody_stops_and_only_a_signature_lifts(stage: Stage) -> None:
    """A person without any role stops an agent with a reason; to lift it needs a passkey's signature of that person."""
    visitor = stage.visitor("visitor")
    page = main_of(visitor, "/agents")
    fields = {**fields_of(page, "/agents/stop"), "kind": "agent", "value": "treasury"}
    assert visitor.post("/agents/stop", {**fields, "reason": "  "}).status == 400
    answer = visitor.post("/agents/stop", {**fields, "reason": "it pays too much"})
    assert (answer.status, answer.headers["location"]) == (303, "/agents?done=stopped-0")
    assert pay(stage.handle, 1, 1_000).code == "killed"
    (kill,) = stage.handle.call("status", {})["kills"]
    assert (kill["kind"], kill["value"]) == ("agent", "treasury")
    page = main_of(visitor, "/agents")
    assert "agent treasury was stopped (visitor: it pays too much)" in page
    order = {"token": fields["token"], "what": "clear", "of": kill["kill"], "reason": "checked"}
    assert "You have no passkey for this page" in text_of(visitor.post("/agents/order", order))

    controller = stage.visitor("controller")
    order["token"] = controller.token("/agents")
    shown = text_of(controller.post("/agents/order", order))
    assert "checked" in shown
    assert kill["kill"] in shown
    signed = sign(stage, "controller", shown, order)
    for change in ({"reason": "another"}, {"of": "kill_" + "0" * 16}, {"what": "revoke"}):
        assert controller.post("/agents/order/signed", {**signed, **change}).status in (400, 403, 409), change
    assert stage.handle.call("status", {})["kills"] != []
    assert controller.post("/agents/order/signed", signed).headers["location"] == "/agents?done=lifted"
    assert stage.handle.call("status", {})["kills"] == []
    assert pay(stage.handle, 2, 1_000).status == "confirmed"


def sign(stage: Stage, person: str, page: str, order: dict[str, str]) -> dict[str, str]:
    """The form as the page's script sends it after the person's passkey answered."""
    import json

    from countermark.authority import decode64, encode64

    key = stage.passkeys[person]
    hidden = fields_of(page, "/agents/order/signed")
    answer = key.assertion(decode64(hidden["challenge"], 64))
    return {**order, **hidden, "credential": encode64(key.credential), "assertion": json.dumps(answer)}


def test_a_mandate_is_ended_by_a_passkey(stage: Stage) -> None:
    """After the signature nothing under the mandate is decided any more, and the page says who ended it."""
    visitor = stage.visitor("controller")
    page = main_of(visitor, "/agents")
    order = {**fields_of(page.partition("End this mandate")[2], "/agents/order"), "what": "revoke", "reason": "over"}
    signed = sign(stage, "controller", text_of(visitor.post("/agents/order", order)), order)
    assert visitor.post("/agents/order/signed", signed).headers["location"] == "/agents?done=ended"
    assert ">revoked<" in main_of(visitor, "/agents")
    assert "No mandate is in force" in main_of(visitor, "/limits")
    with pytest.raises(Exception, match="no mandate in force"):
        pay(stage.handle, 1, 1_000)


def test_the_policy_stands_there_in_words(stage: Stage) -> None:
    """Limits, ladders, people and who put it in force."""
    plain = re.sub(r"<[^>]+>", "", main_of(stage.visitor("visitor"), "/policy"))
    for said in (
        "never more than 25,000.00 EUR", "Written by treasurer, put in force by treasurer",
        "1 of approver, within 4 hours", "1 of chief, within 2 hours", "Farah Chief (chief)", "1 passkey, 1 key file",
        "once per payee and invoice", "vendors.first_large_payment, asks finance",
    ):  # fmt: skip
        assert said in plain, said
    assert "Compare" not in plain.partition("The draft")[2].partition("Your roles")[0].replace("Compared", "")


def test_the_tests_of_the_draft_run_beside_the_gate(stage: Stage) -> None:
    """The button begins them in a process of its own; the page shows what passed when they are done."""
    visitor = stage.visitor("controller")
    token = visitor.token("/policy")
    assert visitor.post("/policy/draft", {"token": token, "what": "tests"}).status == 303
    page = finished(visitor, "/policy/draft", "Running, since")
    assert re.search(r"\d+ passed, \d+ failed", page), page


DRAFT = {
    "bundle": {"from": "sha256:" + "0" * 64, "to": "sha256:" + "1" * 64, "same": False, "files": [], "parts": {},
               "words": ["limit payment_ask_above: 5,000.00 EUR -> 2,000.00 EUR"]},
    "decisions": {"from": 0, "to": 13, "decided": 3, "same": 2, "changed": 1, "partial": 0, "more": 0,
                  "counts": [{"was": "flag", "now": "escalate", "count": 1}],
                  "listed": [{"seq": 8, "at": 1, "id": "act_" + "8" * 32, "agent": "treasury", "run": "r",
                              "call_id": "c", "tool": TOOL, "terms": {"amount": 240_000, "currency": "eur",
                              "payee": "acme-paper"},
                              "references": {}, "was": {"disposition": "flag", "code": "flagged", "reasons": []},
                              "now": {"disposition": "escalate", "code": "needs_approval", "reasons": []},
                              "words": ["limits.payment.ask: the amount <b>2,400.00 EUR</b> is above"]}]},
    "approvals": [{"escalation": "esc_" + "1" * 32}], "open": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (DRAFT, ("2,000.00 EUR", "1 would be other ones: 1 from flag to escalate", "1 open question would be void",
                 "2,400.00 EUR", "Nothing is under way")),
        ({**DRAFT, "bundle": {**DRAFT["bundle"], "same": True}}, ("nothing would change",)),
        ({"error": {"code": "bad_policy", "message": "limits.toml, line 3: <i>", "hint": "Mend it."}},
         ("limits.toml, line 3: <i> Mend it.",)),
        ("no json", ("It could not be compared: broken",)),
    ],
)  # fmt: skip
def test_what_a_draft_would_change_is_shown(stage: Stage, printed: Any, said: tuple[str, ...]) -> None:
    """The document of ``policy diff``, or what was wrong with the draft, in words and never as markup."""
    import json

    from countermark.server.console.jobs import Job
    from countermark.server.console.policy import DRAFT as NAME

    out = json.dumps(printed).encode() if printed != "no json" else b"no json"
    console = stage.listener._front._console
    console.jobs._jobs[NAME] = Job(NAME, "controller", 1, ended=2, code=0, out=out, err="broken")
    visitor = stage.visitor("controller")
    raw = visitor.get("/policy").body
    assert b"<b>2,400" not in raw
    assert b"<i>" not in raw
    plain = " ".join(re.sub(r"<(?!i>|b>|/b>)[^>]+>", "", main_of(visitor, "/policy")).replace("</b>", "").split())
    for one in said:
        assert one in plain.replace("<b>", ""), plain


def test_an_order_names_what_can_be_ordered(stage: Stage) -> None:
    """What is shown to be copied into a shell is the name of a kill or of a mandate, and nothing else."""
    visitor = stage.visitor("visitor")
    token = visitor.token("/agents")
    for what, of in (("clear", "$(touch /tmp/x)"), ("clear", "kill_1"), ("revoke", "kill_" + "0" * 16), ("x", "y")):
        form = {"token": token, "what": what, "of": of, "reason": "x"}
        assert visitor.post("/agents/order", form).status == 400, of
    form = {"token": token, "what": "clear", "of": "kill_" + "0" * 16, "reason": "x"}
    assert "countermark kill clear kill_0000" in text_of(visitor.post("/agents/order", form))
    for reason in ("", " ", "x" * 501):
        assert visitor.post("/agents/order", {**form, "reason": reason}).status == 400


def test_odd_filters_are_answered(stage: Stage) -> None:
    """Bytes that are no text, NUL, the ends of Unicode and of the calendar end in a page, never in a fault."""
    pay(stage.handle, 1, 48_000)
    visitor = stage.visitor("visitor")
    for query in (
        "text=%00",
        "text=%ff",
        "text=%F4%8F%BF%BF",
        "text=%25",
        "day=9999-12-31",
        "day=0001-01-01",
        "text=act_" + "f" * 32,
        "before=0",
        "before=9999999999999999",
        "payee=%00&agent=%0a",
        "others=2",
    ):
        assert visitor.get(f"/payments?{query}").status in (200, 400), query


def test_health_says_what_is_wrong(stage: Stage) -> None:
    """Unknown outcomes and stops are named with the way to them; a warning of the process is counted."""
    import logging

    stage.provider.script.extend(["lost_before"] * 50)
    stage.provider.lookup_says = "timeout"
    action = pay(stage.handle, 1, 48_000).action
    visitor = stage.visitor("treasurer")
    logging.getLogger("countermark.gate").warning("background work: %s", "a <b>disk</b> is slow")
    page = main_of(visitor, "/health")
    assert "1 outcome is unknown" in page
    assert f"/payments/{action}" in page
    assert "gate: background work: a <b>disk</b> is slow" in page  # as text_of unescapes it
    assert b"<b>disk</b>" not in visitor.get("/health").body
    assert "MiB free" in page
    assert "MiB free" not in main_of(stage.visitor("visitor"), "/health")


def test_doctor_runs_from_the_page(stage: Stage) -> None:
    """All its checks stand on the page when it is done."""
    visitor = stage.visitor("treasurer")
    token = visitor.token("/health")
    assert visitor.post("/health/doctor", {"token": token}).status == 303
    page = finished(visitor, "/health/now", "It looks, since")
    for name in ("files", "keys", "journal", "cache", "high-water", "policy", "disk", "backup"):
        assert f"<dt>{name}</dt>" in page, page


# Evidence --------------------------------------------------------------------------------------------


def test_evidence_says_plainly_what_there_is_not(stage: Stage) -> None:
    """Heads with roots, the key, and that no witness and no epoch exists."""
    pay(stage.handle, 1, 48_000)
    page = main_of(stage.visitor("visitor"), "/evidence")
    status = stage.handle.call("status", {})
    assert status["log_key"] in page
    assert page.count("<strong>None.</strong>") == 2
    assert "by the log's key" in page
    assert "not the log's" not in page


def made_pack(stage: Stage, visitor: Visitor) -> bytes:
    token = visitor.token("/evidence")
    size = re.search(r'name="size"[^>]*value="(\d+)"', text_of(visitor.get("/evidence")))
    assert size is not None
    assert visitor.post("/evidence/pack", {"token": token, "size": "999999"}).status == 400  # no head has this size
    assert visitor.post("/evidence/pack", {"token": token, "size": size[1]}).status == 303
    page = finished(visitor, "/evidence/pack", "is being made")
    link = re.search(r'href="(/evidence/pack/[^"]+)"', page)
    assert link is not None, page
    answer = visitor.get(link[1])
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].endswith(f'-{size[1]}.zip"')
    return answer.body


def check(visitor: Visitor, pack: bytes, trust: bytes = b"", **headers: str) -> Any:
    sent = {
        "Content_Type": "application/octet-stream", "Origin": visitor.origin, "Sec_Fetch_Site": "same-origin",
        "X_Countermark_Token": visitor.token("/evidence"), "HX_Request": "true", **headers,
    }  # fmt: skip
    return visitor.ask("POST", "/evidence/check", len(trust).to_bytes(4, "big") + trust + pack, **sent)


def test_a_pack_is_made_fetched_and_checked(stage: Stage) -> None:
    """An auditor takes a pack away, which is recorded under their name, and the verifier checks what is sent back."""
    pay(stage.handle, 1, 48_000)
    visitor = stage.visitor("auditor")
    pack = made_pack(stage, visitor)
    assert {"person:auditor"} <= {one["reader"] for one in readings(stage) if one["what"] == "export"}
    page = text_of(check(visitor, pack))
    assert "INCOMPLETE" in page
    assert "without a trust file it cannot be more" in page
    assert page.count('<tr><th scope="row">V') == 21

    link = re.search(r'href="(/evidence/pack/[^"]+)"', text_of(visitor.get("/evidence")))
    assert link is not None
    assert stage.visitor("controller").get(link[1]).status == 403
    assert stage.visitor("treasurer").get(link[1]).status == 200
    assert "person:treasurer" in {one["reader"] for one in readings(stage) if one["what"] == "export"}

    altered = bytearray(pack)
    at = pack.index(b'"amount":48000')
    altered[at + 9 : at + 14] = b"48001"
    page = text_of(check(visitor, bytes(altered)))
    assert "VERIFIED" not in page
    assert "INCOMPLETE" not in page
    assert list((stage.root / "cache").glob("check-*")) == list((stage.root / "cache").glob("trust-*")) == []


@pytest.mark.parametrize("junk", [b"no zip", b"PK\x03\x04" + b"\0" * 100, b"\x1f\x8b" * 5_000])
def test_junk_is_no_pack(stage: Stage, junk: bytes) -> None:
    """Whatever is sent, the answer is the verifier's, and the server goes on."""
    visitor = stage.visitor("auditor")
    answer = check(visitor, junk)
    assert answer.status == 200
    assert "UNREADABLE" in text_of(answer)
    assert check(visitor, b"").status == 400
    assert check(visitor, junk, Content_Type="text/plain").status == 415
    assert check(visitor, b"", b"\xff" * 70_000).status == 400


def test_only_that_page_takes_a_long_body(stage: Stage) -> None:
    """A body longer than others may be is refused at the wire everywhere else, and there above its own bound."""
    visitor = stage.visitor("auditor")
    body = b"\0" * 70_000
    assert visitor.ask("POST", "/agents/stop", body, Content_Type="application/x-www-form-urlencoded").status == 413
    assert check(visitor, body).status == 200
    stranger = stage.visitor()
    sent = {"Content_Type": "application/octet-stream", "Origin": stranger.origin, "Sec_Fetch_Site": "same-origin"}
    assert stranger.ask("POST", "/evidence/check", body, **sent).status == 403
