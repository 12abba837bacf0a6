"""Compiling a policy directory: what comes out, and every problem at its file and line with the nearest right name."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_support import DRAFTS, KEYS, LIMITS, SOURCES, TOOLS, WEAK_KEY, compiled

from countermark.model.canon import canon, parse
from countermark.model.errors import PolicyError
from countermark.model.tool import ArgSpec, ToolSpec
from countermark.policy import Bundle, Engine, Finding, check, compile_bundle, load_sources

OWN = '@id("own")\nforbid(principal, action == Action::"bank.pay", resource)\nwhen { %s };\n'


def refused(**files: str) -> list[Finding]:
    with pytest.raises(PolicyError) as caught:
        compiled(**files)
    return [finding for finding in caught.value.findings if isinstance(finding, Finding)]


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


# -- what comes out -------------------------------------------------------------------------------------------------


def test_the_bundle_is_a_pure_function_of_its_sources() -> None:
    """The same sources in another order give the same bytes; another number gives another digest."""
    one, two = compiled(), compile_bundle(tuple(reversed(SOURCES.items())), DRAFTS)
    assert one.raw == two.raw
    assert one.digest == two.digest
    assert compiled(limits=LIMITS.replace("max = 1000", "max = 1001")).digest != one.digest
    assert parse(one.raw) == one.document


def test_the_document_has_the_members_of_the_specification() -> None:
    """docs/spec/policy.md lists the members; a bundle has these and no other."""
    document = compiled().document
    assert set(document) == {"v", "source", "compiled"}
    assert [path for path, _ in document["source"]] == sorted(path for path, _ in document["source"])
    assert set(document["compiled"]) == {
        "cedar", "schema", "entities", "limits", "facts", "tools", "people", "agents", "payees", "ladders", "zone",
        "currencies", "author",
    }  # fmt: skip


def test_tools_are_completed_from_their_drafts() -> None:
    """The endpoint gets its origin, the argument its class, the tool its facts and its scope."""
    tool = compiled().compiled.tools["bank.pay"]
    assert tool.endpoint == "POST https://api.bank.example/v1/pay"
    assert tool.by_alias["invoice"].required
    assert (tool.facts, tool.once_scope, tool.once_per) == (("day_total",), "bank.pay", ("payee", "invoice"))
    assert tool.key_ttl_s == 3_600


def test_windows_group_amounts_by_currency_and_count_only_payments() -> None:
    """A sum never mixes currencies; a count never counts reads."""
    window = '[[window]]\nname = "hour_count"\nof = "count"\nover = "1h"\nper = ["agent"]\nmax = 3\n'
    facts = {fact.name: fact for fact in compiled(limits=LIMITS + window).compiled.facts}
    assert facts["day_total"].group == ("agent", "currency")
    assert facts["hour_count"].where == (("tool", ("bank.pay", "bank.sweep")),)
    assert facts["day_total"].over_us == 86_400_000_000


def test_a_connector_without_drafts_says_everything_itself() -> None:
    """tools.toml alone is enough for a connector that offers no drafts."""
    tools = TOOLS + (
        '[connector.desk]\norigin = "https://desk.example"\n'
        '[tool."desk.pay"]\nconnector = "desk"\nclass = "money"\nencoding = "json-v1"\nendpoint = "POST /pay"\n'
        'currency = "eur"\nonce_per = ["slip"]\n'
        '[tool."desk.pay".args]\nsum = { class = "amount", type = "integer", required = true, max = 900 }\n'
        'slip = { class = "reference", required = true, enum = ["a", "b"] }\n'
    )
    tool = compiled(tools=tools).compiled.tools["desk.pay"]
    assert tool.endpoint == "POST https://desk.example/pay"
    assert (tool.by_name["sum"].maximum, tool.by_name["slip"].enum) == (900, ("a", "b"))


def test_own_facts_reach_the_tools_that_have_their_fields() -> None:
    """A fact is computed for a tool only when it has the fields and a policy that can apply reads it."""
    facts = '[facts.paid]\nkind = "slot"\ngroup = ["payee"]\nuse = "floor"\n'
    bundle = compiled(facts=facts, own=OWN % "!context.facts.paid.known")
    assert bundle.compiled.tools["bank.pay"].facts == ("day_total", "paid")
    assert bundle.compiled.tools["bank.sweep"].facts == ("day_total",)
    assert [fact.name for fact in bundle.compiled.facts] == ["day_total", "paid"]
    assert bundle.warnings == ()


def test_a_tool_reads_what_its_policies_name() -> None:
    """`reads` lists the context members whose names all occur in one policy covering the tool, sorted; the schema
    has exactly these."""
    plain = compiled().compiled.tools
    assert plain["bank.pay"].reads == ("amount", "facts.day_total")
    assert plain["bank.balance"].reads == ()
    tools = compiled(own=OWN % "context has args.note && context.facts.local_minute > 5").compiled.tools
    assert tools["bank.pay"].reads == ("amount", "args.note", "facts.day_total", "facts.local_minute")
    assert tools["bank.sweep"].reads == plain["bank.sweep"].reads


def test_an_exception_is_a_permit_that_ends_by_itself() -> None:
    """It names a ticket and reads the day, or whether something within a length of time is known."""
    bundle = compiled(own='@id("x") @ticket("T-1")\npermit (principal, action in Action::"money", resource)\n'
                          "when { context.facts.local_day <= 20261231 };")  # fmt: skip
    assert "facts.local_day" in bundle.compiled.tools["bank.pay"].reads
    assert "facts.local_day" not in compiled().compiled.tools["bank.pay"].reads


def test_limits_are_one_entity() -> None:
    """The numbers of limits.toml stand in `Limits::"limits"`; a bundle without numbers has no such entity."""
    bundle = compiled()
    (limits,) = [e for e in orjson.loads(bundle.compiled.entities) if e["uid"]["type"] == "Limits"]
    assert limits["attrs"] == dict(bundle.compiled.limits)
    reads = '[connector.bank]\norigin = "https://x.example"\n[tool."bank.balance"]\nconnector = "bank"\n'
    few = LIMITS.partition("[payment]")[0]
    assert "Limits" not in compiled(limits=few, tools=reads).compiled.entities


@pytest.mark.parametrize(
    ("clause", "hint"),
    [('resource == Payee::"acmee"', "'acme'"), ('principal == Agent::"tresury"', "'treasury'"),
     ('[Payee::"$unknwon"].contains(resource)', "'$unknown'"), ('Limits::"limit".payment_max > 3', "'limits'")],
)  # fmt: skip
def test_a_policy_about_somebody_who_does_not_exist_is_refused(clause: str, hint: str) -> None:
    """A forbid for a misspelt payee validates in Cedar and never applies; here it is a finding at its line."""
    (finding,) = refused(own=OWN % clause)
    assert (finding.code, finding.line) == ("unknown_entity", 3)
    assert hint in finding.hint


def test_ladders_may_stand_in_a_file_of_their_own() -> None:
    """ladders.toml holds the same tables as limits.toml."""
    head, _, ladder = LIMITS.partition("[ladder.finance]")
    bundle = compiled(limits=head, ladders="[ladder.finance]" + ladder)
    assert bundle.compiled.ladders["finance"].rungs[0].deadline_s == 14_400


@pytest.mark.parametrize("member", ["cedar", "facts", "tools", "people", "zone", "payees", "ladders"])
def test_a_damaged_document_is_refused(member: str) -> None:
    """A bundle without a member, or with a member of another type, does not load."""
    document = orjson.loads(compiled().raw)
    for broken in (None, [{"id": 1}], 3):
        document["compiled"][member] = broken
        if member in ("cedar", "zone"):
            del document["compiled"][member]
        with pytest.raises(PolicyError):
            Bundle.from_document(document)
    for junk in ([], {}, {"v": 2, "source": [], "compiled": {}}, None, [[1]]):
        with pytest.raises(PolicyError):
            Bundle.from_document(junk)  # type: ignore[arg-type]


# -- what is wrong --------------------------------------------------------------------------------------------------

LIMITS_CASES = [
    ("max = 1000", "max = 1000.5", "wrong_type", "minor units"),
    ("max = 1000", 'max = "1000"', "wrong_type", "minor units"),
    ("max = 1000", "max = 0", "bad_value", ""),
    ("max = 1000", "max = 9007199254740992", "bad_value", ""),
    ("ask_above = 500", "ask_above = 1000", "bad_value", ""),
    ("ask_above = 500", "ask_abvoe = 500", "unknown_key", "ask_above"),
    ("unknown_payee", "unknown_paye", "unknown_key", "unknown_payee"),
    ('unknown_payee = "ask"', 'unknown_payee = "aks"', "bad_value", "'ask'"),
    ('ladder = "finance"', 'ladder = "finanse"', "unknown_ladder", "'finance'"),
    ('ladder = "finance"', "", "missing_ladder", "ladder"),
    ('author = "treasurer"', 'author = "treasurr"', "unknown_person", "'treasurer'"),
    ('zone = "Europe/Berlin"', 'console = "http://gate.example"', "bad_value", "https://HOST"),
    ('zone = "Europe/Berlin"', 'console = "https://gate.example/x"', "bad_value", "https://HOST"),
    ('zone = "Europe/Berlin"', 'console = "http://127.0.0.1:8521"', "bad_value", "localhost"),
    ('owner = "treasurer"', 'owner = "nobody"', "unknown_person", "Known: controller, treasurer."),
    ('zone = "Europe/Berlin"', 'zone = "Europe/Berln"', "bad_value", "Europe/Berlin"),
    ('zone = "Europe/Berlin"', 'zone = "../../etc/passwd"', "bad_value", ""),
    ('currencies = ["eur"]', "currencies = []", "bad_value", ""),
    ('currencies = ["eur"]', 'currencies = ["e r"]', "bad_value", ""),
    ('currencies = ["eur"]', 'currencies = ["EUR"]', "bad_value", "'eur'"),
    ('currencies = ["eur"]', 'currencies = ["euro"]', "bad_value", "'eur'"),
    ('currencies = ["eur"]', 'currencies = ["eur", "usdx"]', "bad_value", "named by its tool"),
    ('currencies = ["eur"]', 'currencies = ["eur", "usd", "USD"]', "bad_value", "provider"),
    ('over = "24h"', 'over = "24 hours"', "bad_value", "24h"),
    ('over = "24h"', 'over = "9999999d"', "bad_value", ""),
    ('per = ["agent"]', 'per = ["agnt"]', "unknown_field", "'agent'"),
    ('name = "day_total"', 'name = "Day"', "bad_value", "a-z"),
    ('name = "day_total"', 'name = "in"', "bad_name", ""),
    ('deadline = "4h"', 'deadline = "99d"', "bad_value", ""),
    ('deadline = "4h"', "", "missing_key", ""),
    (KEYS["controller"], KEYS["treasurer"], "shared_key", "person"),
    (KEYS["controller"], "ed25519:AAAA", "bad_key", ""),
    (KEYS["controller"], WEAK_KEY, "bad_key", ""),
    (KEYS["controller"], "{{KEY:controller}}", "placeholder", "public key"),
    ('roles = ["principal"]', "roles = []", "no_principal", ""),
    ("[agents.treasury]", '[agents."Bad Name"]', "bad_name", ""),
    ("[people.controller]", "[peple.controller]", "unknown_key", "'people'"),
    ("[payment]", "[payment", "bad_toml", ""),
    ('account = "acct_acme"', 'account = ""', "bad_value", ""),
]


@pytest.mark.parametrize(
    ("right", "wrong", "code", "hint"), LIMITS_CASES, ids=[str(i) for i in range(len(LIMITS_CASES))]
)
def test_a_wrong_line_of_limits_is_found_where_it_stands(right: str, wrong: str, code: str, hint: str) -> None:
    """Each mistake gives one finding with its code, its line and a hint."""
    text = LIMITS.replace(right, wrong, 1)
    found = [finding for finding in refused(limits=text) if finding.code == code]
    assert found, refused(limits=text)
    assert any(hint in finding.hint for finding in found)
    if wrong and code not in ("no_principal", "missing_key", "missing_ladder", "bad_toml", "shared_key"):
        assert line_of(text, wrong) in {finding.line for finding in found}


TOOLS_CASES = [
    ('once_per = ["payee", "invoice"]', 'once_per = ["payee", "invoce"]', "unknown_alias", "'invoice'"),
    ('once_per = ["payee", "invoice"]', "", "missing_key", "obligation"),
    ('once_per = ["batch"]', 'once_per = ["batch"]\nrecovery = "idempotent"', "bad_value", "seconds"),
    ('once_per = ["batch"]', 'once_per = ["batch"]\nrecovery = "retry"', "bad_value", "Known"),
    ('currency = "eur"', "", "currency_not_mapped", "currency"),
    ('currency = "eur"', 'currency = "usd"', "unknown_currency", "eur"),
    ('connector = "bank"', 'connector = "bnk"', "unknown_connector", "'bank'"),
    ('[tool."bank.pay"]', '[tool."bank.pya"]', "unknown_tool", "'bank.pay'"),
    ('origin = "https://api.bank.example"', 'origin = "http://api.bank.example"', "bad_value", "https"),
    ('origin = "https://api.bank.example"', 'origin = "https://api.bank.example/v1"', "bad_value", "path"),
    ('origin = "https://api.bank.example"', "", "missing_origin", "origin"),
    ("required = true", "requird = true", "unknown_key", "'required'"),
    ("required = true", 'required = "yes"', "wrong_type", ""),
    ("required = true", 'pattern = "("', "bad_value", ""),
    ("required = true", "minimum = 3", "bad_value", ""),
    ("required = true", 'alias = "note"', "duplicate", ""),
    ("required = true", 'alias = "Note"', "bad_value", ""),
    ("required = true", 'class = "amount"', "ambiguous", ""),
    ('args."metadata[invoice]"]', 'args."metadata[invoce]"]', "unclassified", "'metadata[invoice]'"),
    ('[tool."bank.balance"]', "[tool.money]", "bad_name", ""),
    ('[tool."bank.balance"]', '[tool."bank.balance"]\nheaders = { Authorization = "x" }', "bad_name", ""),
    ('[tool."bank.balance"]', '[tool."bank.balance"]\noutputs = { total = "numbr" }', "bad_value", "integer"),
    ('[tool."bank.balance"]', '[tool."bank.balance"]\nendpoint = "/x"', "bad_value", "POST /path"),
    ('once_per = ["batch"]', 'once_per = ["batch"]\nendpoint = "POST /v1/{bach}"', "bad_path", "another path"),
    ('once_per = ["batch"]', 'once_per = ["batch"]\nendpoint = "POST /v1/{batch}/{batch}"', "bad_path", "{intent}"),
    ('once_per = ["batch"]', 'once_per = ["batch"]\nendpoint = "POST /v1/x?b={batch}"', "bad_path", "{intent}"),
    (
        'once_per = ["batch"]',
        'once_per = ["batch"]\nendpoint = "POST https://{batch}.example/v1"',
        "bad_path",
        "{intent}",
    ),
    ('once_per = ["batch"]', 'once_per = ["batch"]\nendpoint = "POST /v1/{Batch}"', "bad_path", "{intent}"),
]


@pytest.mark.parametrize(("right", "wrong", "code", "hint"), TOOLS_CASES, ids=[str(i) for i in range(len(TOOLS_CASES))])
def test_a_wrong_line_of_tools_is_found(right: str, wrong: str, code: str, hint: str) -> None:
    """Each mistake in tools.toml gives a finding with its code and a hint."""
    text = TOOLS.replace(right, wrong, 1)
    found = [finding for finding in refused(tools=text) if finding.code == code]
    assert found, refused(tools=text)
    assert any(hint in finding.hint for finding in found)
    assert all(finding.file == "tools.toml" and finding.line > 0 for finding in found)


@pytest.mark.parametrize(
    ("right", "wrong", "codes"),
    [
        ('[tool."bank.pay"', '[tool."bank.pya"', ["unknown_tool"]),
        ('connector = "bank"', 'connector = "bnk"', ["unknown_connector"] * 3),
        ('connector = "bank"\nonce_per = ["batch"]', 'once_per = ["batch"]', ["missing_key"]),
    ],
)
def test_what_follows_from_a_mistyped_tool_is_not_told(right: str, wrong: str, codes: list[str]) -> None:
    """One wrong name is one problem: neither what the tool then lacks nor who names it elsewhere is one more."""
    cases = '[[case]]\nname = "one"\ntool = "bank.pay"\nargs = {}\nexpect = "deny"\n'
    facts = '[facts.as_read]\nkind = "grounded"\nof = "amount"\ntool = "bank.pay"\nfield = "paid"\n'
    found = refused(tools=TOOLS.replace(right, wrong), cases=cases, facts=facts)
    assert [(finding.file, finding.code) for finding in found] == [("tools.toml", code) for code in codes]


def test_a_currency_without_a_code_is_one_that_a_tool_names() -> None:
    """A token has no ISO code: it may be moved where a tool's own line says so, and only there is its name known."""
    tools = TOOLS.replace('currency = "eur"', 'currency = "usdx"')
    limits = LIMITS.replace('currencies = ["eur"]', 'currencies = ["eur", "usdx"]')
    assert compiled(limits=limits, tools=tools).compiled.currencies == ("eur", "usdx")


def test_what_is_wrong_with_a_whole_file_names_it(tmp_path: Path) -> None:
    """A file that is missing, too long or not UTF-8 is a finding of that file, as every other one is."""
    for name, text in (("limits.toml", LIMITS), ("tools.toml", TOOLS)):
        (tmp_path / name).write_text(text)
    (tmp_path / "limits.toml").unlink()
    for raw in (None, b"\xff", b"#" * 200_000):
        if raw is not None:
            (tmp_path / "limits.toml").write_bytes(raw)
        (found,) = check(tmp_path, DRAFTS).findings
        assert (found.file, found.line, found.code) == ("limits.toml", 0, "bad_policy")
        assert str(found).startswith("limits.toml: error: ")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ((), "amount_not_mapped"),
        ((ArgSpec("a", "integer", "amount", "a", required=False),), "bad_amount"),
        ((ArgSpec("a", "integer", "amount", "a", minimum=0),), "bad_amount"),
        ((ArgSpec("a", "integer", "amount", "a", sensitive=True),), "bad_amount"),
        ((ArgSpec("a", "string", "amount", "a"),), "bad_amount"),
        ((ArgSpec("a", "integer", "amount", "a"), ArgSpec("b", "string", "", "b")), "unclassified"),  # type: ignore[arg-type]
        ((ArgSpec("a", "integer", "amount", "a"), ArgSpec("b", "integer", "payee", "b")), "bad_value"),
    ],
)
def test_a_money_tool_with_a_doubtful_amount_is_refused(args: tuple[ArgSpec, ...], code: str) -> None:
    """No amount, an optional, textual, hidden or zero amount, and an unclassified argument refuse the bundle."""
    draft = ToolSpec("x.pay", "x", "money", args, endpoint="POST /p")
    tools = TOOLS + '[connector.x]\norigin = "https://x.example"\n[tool."x.pay"]\nconnector = "x"\nonce_per = ["a"]\n'
    with pytest.raises(PolicyError) as caught:
        compile_bundle(
            tuple({**SOURCES, "tools.toml": tools + 'currency = "eur"\n'}.items()), {**DRAFTS, "x": (draft,)}
        )
    assert code in {finding.code for finding in caught.value.findings}  # type: ignore[attr-defined]


FACTS_CASES = [
    ('kind = "window"\nof = "amount"\nover = "1d"\nuse = "cap"', "bad_fact", "mixes currencies"),
    ('kind = "window"\nof = "amount"\nover = "1d"\ngroup = ["curency"]\nuse = "cap"', "unknown_field", "'currency'"),
    ('kind = "slot"\ngroup = ["args.invoce"]\nuse = "cap"', "unknown_field", "args.invoice"),
    ('kind = "windw"\nof = "count"\nover = "1d"\nuse = "cap"', "bad_value", "'window'"),
    ('kind = "slot"\ngrop = ["payee"]\nuse = "cap"', "unknown_key", "'group'"),
    ('kind = "slot"', "missing_key", ""),
    ('kind = "distinct"\nof = "payeee"\nover = "1d"\nuse = "cap"', "unknown_field", "'payee'"),
    ('kind = "grounded"\nof = "amount"\ntool = "bank.balnce"\nfield = "total"', "unknown_tool", "'bank.balance'"),
    ('kind = "grounded"\nof = "amount"\ntool = "bank.balance"\nfield = "totl"', "unknown_field", "'total'"),
    ('kind = "grounded"\nof = "amount"\ntool = "bank.balance"\nfield = "total"\nuse = "cap"', "bad_fact", ""),
    ('kind = "slot"\nuse = "cap"\nwhere = { agent = [1.5] }', "bad_fact", ""),
    ('kind = "slot"\nuse = "cap"\nwhere = { "output.total" = [1] }', "bad_fact", "use = floor"),
    ('kind = "slot"\nuse = "floor"\nwhere = { "output.totl" = [1] }', "unknown_field", "output.total"),
    (
        'kind = "slot"\nuse = "floor"\nwhere = { tool = ["bank.pay"], "output.total" = [1] }', "unknown_field",
        "none of its tools",
    ),
    ('kind = "slot"\nuse = "floor"\ngroup = ["output.total"]', "unknown_field", ""),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "text"), FACTS_CASES, ids=[str(i) for i in range(len(FACTS_CASES))])
def test_a_wrong_fact_is_found(body: str, code: str, text: str) -> None:
    """Each mistake in facts.toml gives a finding in that file with what to write instead."""
    found = [finding for finding in refused(facts=f"[facts.mine]\n{body}\n") if finding.code == code]
    assert found
    assert all(finding.file == "facts.toml" and finding.line > 0 for finding in found)
    assert any(text in finding.hint + finding.message for finding in found)


@pytest.mark.parametrize("name", ["payee_known", "instructed", "local_day", "day_total"])
def test_a_fact_may_not_take_the_name_of_another(name: str) -> None:
    """Built-in facts and windows keep their names."""
    (finding,) = [f for f in refused(facts=f'[facts.{name}]\nkind = "slot"\nuse = "cap"\n') if f.code == "duplicate"]
    assert finding.line == 1


def test_a_fact_that_nobody_reads_is_a_warning() -> None:
    """It refuses nothing, is not computed, and is named with its line."""
    bundle = compiled(facts='\n[facts.idle]\nkind = "slot"\nuse = "cap"\n')
    (warning,) = bundle.warnings
    assert (warning.file, warning.line, warning.code) == ("facts.toml", 2, "fact_never_read")
    assert all(fact.name != "idle" for fact in bundle.compiled.facts)


CEDAR_CASES = [
    ("context.amuont > 3", 3, "'amount'"),
    ('Limits::"limits".payment_mx > 3', 3, "'payment_max'"),
    ("context.limits.payment_max > 3", 3, 'Limits::"limits".NAME'),
    ('Limts::"limits".payment_max > 3', 3, "'Limits'"),
    ("context.facts.day_totl > 3", 3, "'day_total'"),
    ('context.args.invoce == "x"', 3, "'invoice'"),
    ('context.args.note == "x"', 3, "context has args.note"),
    ('context.amount > 1 &&\n  context.currency == 3', 1, ""),
    ("context.facts.instructed > 3", 1, ""),
    ('resource == Payeee::"acme"', 3, "'Payee'"),
    ('principal in Agent::"treasury" && action == Action::"bank.pya"', 3, "'bank.pay'"),
]  # fmt: skip


@pytest.mark.parametrize(("clause", "line", "hint"), CEDAR_CASES, ids=[str(i) for i in range(len(CEDAR_CASES))])
def test_a_wrong_name_in_a_policy_is_found_at_its_line(clause: str, line: int, hint: str) -> None:
    """Cedar's complaint is put at the line of the name it is about, with the nearest right name."""
    found = refused(own="\n// a comment; with a semicolon\n" + OWN % clause)
    assert {(finding.file, finding.code) for finding in found} == {("policies/own.cedar", "policy_invalid")}
    assert line + 2 in {finding.line for finding in found}
    assert any(hint in finding.hint for finding in found)


POLICY_CASES = [
    ("permit(principal, action, resource);", "missing_id", ""),
    ('@id("no spaces") permit(principal, action, resource);', "missing_id", ""),
    ('@id("limits.permit") permit(principal, action, resource);', "duplicate", ""),
    ('@id("a") permit(prncipal, action, resource);', "bad_cedar", ""),
    ('@id("a") permit(principal, action, resource)', "bad_cedar", ""),
    ('@id("a") permit(principal == ?principal, action, resource);', "bad_cedar", "Name the principal"),
    ('@id("a") @escalate("finanse") forbid(principal, action, resource);', "unknown_ladder", "'finance'"),
    ('@id("a") @escalate("finance") permit(principal, action, resource);', "bad_annotation", ""),
    ('@id("a") @ticket("T-1") forbid(principal, action, resource);', "bad_annotation", "ends by itself"),
    ('@id("a") @ticket("T-1") permit(principal, action, resource);', "bad_annotation", "local_day"),
    ('@id("a") @flag("look") forbid(principal, action, resource);', "bad_annotation", "@escalate"),
    ('@id("a") permit(principal, action in Action::"change", resource);', "policy_invalid", "No tool"),
    ('@id("a") forbid(principal, action, resource) when { context.amount > 3 };', "policy_invalid", "money tools"),
    ('@id("a") permit(principal, action, resource) when { "' + "x" * 40_000 + '" == "" };', "bad_cedar", ""),
]


@pytest.mark.parametrize(("text", "code", "hint"), POLICY_CASES, ids=[str(i) for i in range(len(POLICY_CASES))])
def test_a_wrong_policy_is_found(text: str, code: str, hint: str) -> None:
    """Ids, annotations, templates and scopes are checked, each at the line the policy starts on."""
    found = [finding for finding in refused(own="\n\n" + text) if finding.code == code]
    assert found
    assert {(finding.file, finding.line) for finding in found} == {("policies/own.cedar", 3)}
    assert any(hint in finding.hint + finding.message for finding in found)


def test_all_problems_are_listed_at_once() -> None:
    """Three mistakes in three files are three findings of one refusal, in the order of files and lines."""
    found = refused(
        limits=LIMITS.replace("flag_above", "flag_abve"),
        own='permit(principal, action, resource);\n' + OWN % "context.amuont > 1",
        cases='[[case]]\nname = "x"\ntool = "bank.pya"\nexpect = "allow"\n',
    )  # fmt: skip
    assert [(f.file, f.line, f.code) for f in found if f.severity == "error"] == [
        ("limits.toml", line_of(LIMITS, "flag_above"), "unknown_key"),
        ("policies/own.cedar", 1, "missing_id"),
        ("policies/own.cedar", 4, "policy_invalid"),
        ("tests/cases.toml", 3, "unknown_tool"),
    ]


def test_lines_are_right_behind_multi_line_values() -> None:
    """Keys inside strings, arrays and comments do not confuse the line numbers."""
    tricky = (
        '# zone = "x"\nauthor = "treasurer"\ncurrencies = [ # [payment]\n  "eur",\n  "usd", ] \n'
        "zone = 'Europe/Berln'\n"
    )
    text = tricky + LIMITS.split("\n", 4)[4].replace('name = "x"', "")
    (finding,) = [f for f in refused(limits=text) if f.severity == "error"]
    assert (finding.line, finding.code) == (6, "bad_value")
    text = LIMITS + '[payees.b]\nname = """a\n[payment]\nmax = \\"""\n"""\nacount = "x"\naccount = "y"\n'
    lines = {f.line for f in refused(limits=text) if f.code == "unknown_key"}
    assert lines == {line_of(text, "acount")}


@pytest.mark.parametrize(
    "clause", ["(" * 5_000 + "true" + ")" * 5_000, "[" * 5_000 + "]" * 5_000 + " == 1", "true" + " && true" * 5_000,
               "context" + ".a" * 10_000 + " == 1", "if true then " * 2_000 + "true" + " else true" * 2_000],
    ids=["parentheses", "sets", "and", "attributes", "if"],
)  # fmt: skip
def test_nesting_that_would_kill_the_process_is_refused(clause: str) -> None:
    """Cedar's parser recurses on the stack; such a policy is a finding, before Cedar sees it."""
    assert {finding.code for finding in refused(own=OWN % clause)} == {"bad_cedar"}


def test_the_nesting_bounds_are_inside_what_cedar_survives() -> None:
    """At the bounds themselves Cedar parses, in a process of its own with a small stack."""
    script = (
        "import threading, sys\nfrom countermark.policy.cedar import *\n"
        "threading.stack_size(2 << 20)\n"
        "def go():\n"
        "    deep = '(' * 22 + '1' + ')' * 22\n"
        "    many = (deep, 'context' + '.a' * 245, ' && '.join(['true'] * 120), ' + '.join([deep] * 240))\n"
        "    for clause in many:\n"
        "        text = '@id(\"x\") permit(principal, action, resource) when { ' + clause + ' };'\n"
        "        try:\n            parse(Statement('', 1, text))\n"
        "        except PolicyError as error:\n            assert 'nesting exceeds' in error.message, error\n"
        "    done.append(1)\n"
        "done = []\nt = threading.Thread(target=go)\nt.start()\nt.join()\nsys.exit(0 if done else 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


@settings(max_examples=120, derandomize=True, deadline=None)
@given(
    st.sampled_from(["limits", "tools", "facts", "own", "ladders", "cases"]), st.text(max_size=200), st.integers(0, 900)
)
def test_no_other_error_leaves_the_compiler(file: str, noise: str, at: int) -> None:
    """Whatever stands in the files, compiling answers with a bundle or with ``PolicyError``."""
    base = {"limits": LIMITS, "tools": TOOLS}.get(file, "")
    noise = noise.encode("utf-8", "replace").decode()
    text = base[:at] + noise + base[at:]
    with contextlib.suppress(PolicyError):
        Engine(compiled(**{file: text}))


TOML_VALUES = st.recursive(
    st.booleans()
    | st.integers(-5, 2**60)
    | st.floats(allow_nan=False)
    | st.sampled_from(["eur", "24h", "ask", "agent", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["max", "of", "x"]), inner, max_size=3),
    max_leaves=4,
)
SLOTS = [
    ("limits", LIMITS, part)
    for part in ("max = 1000", 'per = ["agent"]', 'roles = ["approver"]', 'zone = "Europe/Berlin"', 'over = "24h"',
                 'currencies = ["eur"]', 'account = "acct_acme"', 'owner = "treasurer"')
] + [("tools", TOOLS, part) for part in ('once_per = ["batch"]', "required = true", 'currency = "eur"')]  # fmt: skip


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return orjson.dumps(value).decode() if not isinstance(value, float) else repr(value)


@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.sampled_from(SLOTS), TOML_VALUES)
def test_values_of_any_type_are_findings_or_bundles(slot: tuple[str, str, str], value: object) -> None:
    """A value of the wrong type in any place is a finding, never a crash and never a bundle that does not load."""
    file, text, part = slot
    key = part.split(" = ")[0]
    with contextlib.suppress(PolicyError):
        bundle = compiled(**{file: text.replace(part, f"{key} = {_toml(value)}", 1)})
        assert Bundle.from_document(orjson.loads(canon(bundle.document))).digest == bundle.digest


# -- directories ----------------------------------------------------------------------------------------------------


def write(root: object, **files: str) -> None:
    for path, text in {**SOURCES, **files}.items():
        target = root / path  # type: ignore[operator]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")


def test_a_directory_is_read_in_one_order(tmp_path: object) -> None:
    """Files of the known names are sources, others are not."""
    write(tmp_path, **{"policies/b.cedar": "", "policies/a.cedar": "", "notes.md": "x", "tests/t.toml": ""})
    paths = [path for path, _ in load_sources(tmp_path)]  # type: ignore[arg-type]
    assert paths == ["limits.toml", "policies/a.cedar", "policies/b.cedar", "tests/t.toml", "tools.toml"]


def test_a_directory_that_is_absent_empty_or_too_large_is_refused(tmp_path: object) -> None:
    """Nothing to read, unreadable bytes and oversized files are refused, not skipped."""
    with pytest.raises(PolicyError):
        load_sources(tmp_path / "nowhere")  # type: ignore[operator]
    with pytest.raises(PolicyError, match=r"limits\.toml"):
        load_sources(tmp_path)  # type: ignore[arg-type]
    for bad in (b"\xff\xfe", b"#" * 200_000):
        write(tmp_path)
        (tmp_path / "facts.toml").write_bytes(bad)  # type: ignore[operator]
        with pytest.raises(PolicyError, match=r"facts\.toml"):
            load_sources(tmp_path)  # type: ignore[arg-type]
    (tmp_path / "facts.toml").write_text("")  # type: ignore[operator]
    write(tmp_path, **{f"policies/{i}.cedar": "" for i in range(130)})
    with pytest.raises(PolicyError, match="128 files"):
        load_sources(tmp_path)  # type: ignore[arg-type]


def test_check_reports_what_each_tool_can_reach(tmp_path: object) -> None:
    """The table names the policies behind every disposition, and says never where there is none."""
    write(tmp_path)
    report = check(tmp_path, DRAFTS)  # type: ignore[arg-type]
    assert report.ok
    rows = {row.tool: row for row in report.table}
    pay = rows["bank.pay"]
    assert pay.allow == ("limits.permit",)
    assert pay.flag == ("limits.payment.flag",)
    assert pay.escalate == ("limits.payee.unknown", "limits.payment.ask")
    assert pay.deny == ("limits.payment.max", "limits.window.day_total")
    assert rows["bank.balance"].escalate == ()
    assert any(line.startswith("bundle sha256:") for line in report.lines())
    assert orjson.dumps(report.document())


def test_check_reports_errors_instead_of_raising(tmp_path: object) -> None:
    """A broken policy and an absent directory are reports too."""
    write(tmp_path, **{"policies/own.cedar": "permit(principal, action, resource);"})
    report = check(tmp_path, DRAFTS)  # type: ignore[arg-type]
    assert not report.ok
    assert [finding.code for finding in report.findings] == ["missing_id"]
    assert report.lines()[-1] == "refused: 1 error(s)"
    assert not check(tmp_path / "nowhere", DRAFTS).ok  # type: ignore[operator]


def test_unconditional_policies_change_what_can_be_reached(tmp_path: object) -> None:
    """A forbid of everything leaves only deny; one that people may lift leaves only the question."""
    for annotation, reached in (("", {"deny"}), ('@escalate("finance") ', {"escalate", "deny"})):
        own = f'@id("stop") {annotation}forbid(principal, action == Action::"bank.pay", resource);'
        write(tmp_path, **{"policies/own.cedar": own})
        (row,) = [row for row in check(tmp_path, DRAFTS).table if row.tool == "bank.pay"]  # type: ignore[arg-type]
        assert {name for name in ("allow", "flag", "escalate", "deny") if getattr(row, name)} == reached
