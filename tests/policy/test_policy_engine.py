"""The strict decision: every disposition, and every way in which Cedar alone would let something through."""

from __future__ import annotations

import dataclasses

import cedarpy
import orjson
import pytest
from policy_support import LIMITS, TOOLS, compiled

from countermark.model.errors import PolicyError
from countermark.policy import Bundle, Engine, Verdict

FACTS = {"payee_known": True, "local_minute": 600, "local_weekday": 2, "instructed": [], "day_total": 100}
ARGS = {"amount": 100, "currency": "eur", "to": "acct_acme", "invoice": "I-1"}


def ask(
    engine: Engine, amount: object = 100, payee: str | None = "acme", tool: str = "bank.pay", agent: str = "treasury",
    lifted: frozenset[str] = frozenset(), facts: dict | None = None, args: dict | None = None,
) -> Verdict:  # fmt: skip
    spec = engine.bundle.compiled.tools[tool]
    terms = {"amount": amount, "currency": "eur", "payee": payee}
    clear = {"amount": amount, "batch": "b"} if tool == "bank.sweep" else {**ARGS, "amount": amount}
    facts = {**FACTS, **(facts or {})}
    context = engine.context(spec, terms, clear if args is None else args, facts)
    return engine.decide(tool, agent, payee, context, lifted)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(compiled())


def test_allow_names_the_satisfied_permits(engine: Engine) -> None:
    """A small payment to a known payee is allowed, and the reasons are the permits' ids."""
    assert ask(engine) == Verdict("allow", "allowed", ("limits.permit",))


def test_flag_when_a_satisfied_permit_carries_it(engine: Engine) -> None:
    """Above the review threshold the same payment is flagged; reasons are sorted."""
    assert ask(engine, 201) == Verdict("flag", "flagged", ("limits.payment.flag", "limits.permit"))


def test_escalate_when_every_satisfied_forbid_can_be_lifted(engine: Engine) -> None:
    """Above the asking threshold, to an unknown payee: both forbids go to the ladder."""
    ids = ("limits.payee.unknown", "limits.payment.ask")
    assert ask(engine, 501, "p:0123") == Verdict("escalate", "needs_approval", ids, {"finance": ids})


def test_deny_when_one_forbid_cannot_be_lifted(engine: Engine) -> None:
    """Above the maximum nobody is asked, although another satisfied forbid could be lifted."""
    expected = Verdict("deny", "denied_by_policy", ("limits.payment.ask", "limits.payment.max"))
    assert ask(engine, 1001) == expected


def test_limits_hold_at_their_exact_value(engine: Engine) -> None:
    """A limit allows its own value and denies one minor unit more."""
    assert ask(engine, facts={"day_total": 5000}).disposition == "allow"
    assert ask(engine, facts={"day_total": 5001}).reasons == ("limits.window.day_total",)
    assert ask(engine, 500).disposition == "flag"
    assert ask(engine, 501).disposition == "escalate"


def test_deny_without_any_permit() -> None:
    """What no policy permits is denied without reasons."""
    engine = Engine(compiled(tools=_with_change()))
    context = engine.context(engine.bundle.compiled.tools["bank.close"], {}, {}, _built_in())
    assert engine.decide("bank.close", "treasury", None, context) == Verdict("deny", "not_permitted")


def _built_in() -> dict:
    return {name: value for name, value in FACTS.items() if name != "day_total"}


def _with_change() -> str:
    return TOOLS + (
        '[connector.other]\norigin = "https://other.example"\n'
        '[tool."bank.close"]\nconnector = "other"\nclass = "change"\nencoding = "json-v1"\nendpoint = "POST /close"\n'
    )


def test_a_read_is_permitted(engine: Engine) -> None:
    """Reads need no limits and no payee."""
    context = engine.context(engine.bundle.compiled.tools["bank.balance"], {}, {}, _built_in())
    verdict = engine.decide("bank.balance", "treasury", None, context)
    assert verdict == Verdict("allow", "allowed", ("tools.read",))


def test_escalation_needs_a_permit_behind_it() -> None:
    """A forbid that could be lifted does not escalate what would not be permitted without it."""
    own = '@id("x") @escalate("finance") forbid(principal, action in Action::"change", resource);'
    engine = Engine(compiled(tools=_with_change(), own=own))
    context = engine.context(engine.bundle.compiled.tools["bank.close"], {}, {}, _built_in())
    assert engine.decide("bank.close", "treasury", None, context) == Verdict("deny", "denied_by_policy", ("x",))


def test_an_absent_payee_of_a_tool_that_takes_one_is_asked_for(engine: Engine) -> None:
    """Leaving an optional payee out is no way around the rule for unknown payees."""
    assert ask(engine, payee=None, tool="bank.sweep").reasons == ("limits.payee.none",)


# -- after an approval --------------------------------------------------------------------------------------------


def test_lifting_exactly_the_satisfied_forbids_decides_without_them(engine: Engine) -> None:
    """With the escalated ids lifted the payment is decided by what is left: flagged, since it is large."""
    verdict = ask(engine, 501, lifted=frozenset(("limits.payment.ask",)))
    assert verdict == Verdict("flag", "flagged", ("limits.payment.flag", "limits.permit"))


@pytest.mark.parametrize(
    "lifted", [("limits.payment.max",), ("limits.payment.ask", "limits.payee.unknown"), ("nonsense",)]
)
def test_lifting_anything_else_voids_the_approval(engine: Engine, lifted: tuple[str, ...]) -> None:
    """Too few, too many or other ids than the satisfied forbids: void."""
    assert ask(engine, 501, lifted=frozenset(lifted)) == Verdict("deny", "approval_void", ("reasons",))


def test_an_approval_of_what_is_allowed_now_is_void(engine: Engine) -> None:
    """When the forbids are no longer satisfied the determining set has changed, so the approval is void."""
    assert ask(engine, 100, lifted=frozenset(("limits.payment.ask",))).code == "approval_void"


def test_lifting_a_forbid_that_stands_beside_another_is_void(engine: Engine) -> None:
    """An approval of the asking threshold does not carry over the maximum."""
    assert ask(engine, 1001, lifted=frozenset(("limits.payment.ask",))).code == "approval_void"


# -- fail-open traps: each would be Allow with plain cedarpy ---------------------------------------------------------

ERRING = '@id("own") forbid(principal, action == Action::"bank.pay", resource) when { %s };'
POLICY_ERROR = Verdict("deny", "policy_error")


def test_a_forbid_that_overflows_denies() -> None:
    """Cedar skips a forbid whose arithmetic leaves i64 and answers Allow; strictly that is a deny."""
    bundle = compiled(own=ERRING % "context.facts.day_total + 9223372036854775807 > 5")
    engine = Engine(bundle)
    context = engine.context(bundle.compiled.tools["bank.pay"], _terms(100), ARGS, FACTS)
    assert engine.evaluate("bank.pay", "treasury", "acme", context).allowed, "the trap: Cedar alone allows"
    assert ask(engine) == POLICY_ERROR
    assert ask(engine, lifted=frozenset(("own",))) == POLICY_ERROR


def _terms(amount: object) -> dict:
    return {"amount": amount, "currency": "eur", "payee": "acme"}


def test_an_absent_agent_denies() -> None:
    """An agent that the bundle does not know is an entity without attributes to Cedar: skipped forbids, Allow."""
    engine = Engine(compiled(own=ERRING % 'principal.owner == "treasurer"'))
    context = engine.context(engine.bundle.compiled.tools["bank.pay"], _terms(100), ARGS, FACTS)
    assert engine.evaluate("bank.pay", "nobody", "acme", context).allowed, "the trap: Cedar alone allows"
    assert ask(engine, agent="nobody") == POLICY_ERROR


def test_an_absent_payee_is_the_unknown_payee(engine: Engine) -> None:
    """A payee that no entity stands for never reaches Cedar under its own name."""
    assert ask(engine, payee="ghost").reasons == ("limits.payee.unknown",)
    assert ask(engine, payee="$unknown").reasons == ("limits.payee.unknown",)


def test_entities_that_are_not_the_bundles_are_refused() -> None:
    """A bundle whose entities lack a payee does not start an engine."""
    bundle = compiled()
    without = orjson.dumps([e for e in orjson.loads(bundle.compiled.entities) if e["uid"]["id"] != "acme"]).decode()
    broken = dataclasses.replace(bundle, compiled=dataclasses.replace(bundle.compiled, entities=without))
    with pytest.raises(PolicyError, match="entities"):
        Engine(broken)
    looser = dataclasses.replace(bundle.compiled, limits={**bundle.compiled.limits, "payment_max": 10**9})
    with pytest.raises(PolicyError, match="entities"):
        Engine(dataclasses.replace(bundle, compiled=looser))


def test_a_missing_fact_denies() -> None:
    """A context without one of the facts that a policy of the tool reads does not fit the schema."""
    own = ERRING % "context.facts.local_minute > 1000 && !context.facts.payee_known"
    engine = Engine(compiled(own=own))
    tool = engine.bundle.compiled.tools["bank.pay"]
    for name in ("local_minute", "payee_known", "day_total"):
        facts = {key: value for key, value in FACTS.items() if key != name}
        context = engine.context(tool, _terms(100), ARGS, facts)
        assert engine.decide("bank.pay", "treasury", "acme", context) == POLICY_ERROR, name


@pytest.mark.parametrize(
    "amount",
    [
        100.0, 0.5, float("nan"), float("inf"), "100", "", True, None, 2**63, 2**64, -(2**63) - 1, [100], {"a": 1},
        pytest.param(object(), id="object"), {"__extn": {"fn": "decimal", "arg": "1.0"}},
    ],
)  # fmt: skip
def test_an_amount_of_the_wrong_type_denies(engine: Engine, amount: object) -> None:
    """Floats, texts, booleans, nulls and integers outside i64 never compare with a limit: deny."""
    assert ask(engine, amount) == POLICY_ERROR


@pytest.mark.parametrize(
    "changes",
    [
        {"invoice": 7}, {"invoice": "\ud800"}, {"invoice": None}, {"invoice": ["I-1"]}, {"note": 1}, {"note": None},
        {"invoice": {"__entity": {"type": "Payee", "id": "acme"}}}, {"invoice": {"__extn": {"fn": "ip", "arg": "::1"}}},
    ],
    ids=["integer", "surrogate", "null", "list", "optional-integer", "optional-null", "entity", "extension"],
)  # fmt: skip
def test_arguments_that_do_not_fit_the_schema_deny(changes: dict) -> None:
    """Mistyped arguments end as policy_error, never as a skipped rule; so does a required one that is missing."""
    engine = Engine(compiled(own=ERRING % 'context.args.invoice == "bad" || (context.args has note && 1 == 2)'))
    assert ask(engine).disposition == "allow"
    assert ask(engine, args={**ARGS, **changes}) == POLICY_ERROR
    assert ask(engine, args={name: value for name, value in ARGS.items() if name != "invoice"}) == POLICY_ERROR


def test_optional_arguments_may_all_be_absent() -> None:
    """A tool whose policies read only optional arguments decides without any of them, and by them when given."""
    tools = _with_change() + '[tool."bank.close".args]\nwhy = { class = "inert" }\n'
    own = (
        '@id("p") permit(principal, action == Action::"bank.close", resource);\n'
        '@id("f") forbid(principal, action == Action::"bank.close", resource)\n'
        'when { context has args.why && context.args.why == "bad" };'
    )
    engine = Engine(compiled(tools=tools, own=own))
    spec = engine.bundle.compiled.tools["bank.close"]
    seen = {}
    for args in ({}, {"why": "good"}, {"why": "bad"}):
        context = engine.context(spec, {}, args, _built_in())
        assert context == ({"args": args} if args else {})
        seen[str(args)] = engine.decide("bank.close", "treasury", None, context).disposition
    assert list(seen.values()) == ["allow", "allow", "deny"]


def test_a_context_made_elsewhere_with_more_members_denies(engine: Engine) -> None:
    """A member that the schema does not have is refused, not ignored."""
    context = engine.context(engine.bundle.compiled.tools["bank.pay"], _terms(100), ARGS, FACTS)
    assert engine.decide("bank.pay", "treasury", "acme", {**context, "extra": 1}) == POLICY_ERROR
    assert engine.decide("bank.pay", "treasury", "acme", {}) == POLICY_ERROR


def test_the_context_holds_what_the_policies_read(engine: Engine) -> None:
    """Nothing is parsed at a decision that no policy of the tool could look at."""
    context = engine.context(engine.bundle.compiled.tools["bank.pay"], _terms(100), ARGS, FACTS)
    assert context == {"amount": 100, "facts": {"day_total": 100}}
    assert engine.context(engine.bundle.compiled.tools["bank.balance"], {}, {}, FACTS) == {}


@pytest.mark.parametrize("fact", ["5", 5.0, None, {"known": True}, 2**63])
def test_a_fact_of_the_wrong_type_denies(engine: Engine, fact: object) -> None:
    """A fact is what the schema says or the answer is deny."""
    assert ask(engine, facts={"day_total": fact}) == POLICY_ERROR


def test_an_unknown_tool_denies(engine: Engine) -> None:
    """There is no action without a tool in the bundle."""
    assert engine.decide("bank.nope", "treasury", "acme", {}) == POLICY_ERROR


def test_a_ladder_that_is_gone_denies() -> None:
    """A forbid that names a ladder nobody stands on cannot be lifted."""
    bundle = compiled()
    engine = Engine(dataclasses.replace(bundle, compiled=dataclasses.replace(bundle.compiled, ladders={})))
    assert ask(engine, 501) == Verdict("deny", "denied_by_policy", ("limits.payment.ask",))


# -- handles and speed ----------------------------------------------------------------------------------------------


def test_policies_entities_and_schema_are_parsed_once(engine: Engine) -> None:
    """Cedar's own metrics say that a decision parses nothing but its request."""
    ask(engine)
    context = engine.context(engine.bundle.compiled.tools["bank.pay"], _terms(100), ARGS, FACTS)
    metrics = engine.evaluate("bank.pay", "treasury", "acme", context).metrics
    assert {name: metrics[name] for name in metrics if name.endswith("pre_parsed")} == {
        "policies_pre_parsed": 1, "entities_pre_parsed": 1, "schema_pre_parsed": 1,
    }  # fmt: skip


def test_a_slice_drops_only_what_cannot_match() -> None:
    """Sliced and whole policy sets answer alike for every tool, payee and amount tried."""
    bundle = compiled(
        own='@id("open") forbid(principal, action, resource) when { context.facts.local_minute > 1000 };'
        '@id("hers") forbid(principal == Agent::"treasury", action in Action::"money", resource)'
        " when { context.amount > 900 };"
        '@id("unknown") forbid(principal == Agent::"treasury", action, resource == Payee::"$unknown");'
        '@id("acme") permit(principal, action in Action::"money", resource == Payee::"acme")'
        " when { context.amount < 10 };"
        '@id("none") permit(principal, action in Action::"money", resource == Payee::"$none")'
        " when { context.amount < 10 };"
    )
    engine = Engine(bundle)
    whole = cedarpy.PolicySet.from_str(bundle.compiled.cedar)
    for tool in ("bank.pay", "bank.sweep"):
        for amount in (1, 201, 501, 1001):
            for payee in ("acme", None, "p:1"):
                spec = bundle.compiled.tools[tool]
                args = ARGS if tool == "bank.pay" else {"amount": amount, "batch": "b"}
                for minute in (0, 1200):
                    facts = {**FACTS, "local_minute": minute}
                    context = engine.context(spec, _terms(amount), {**args, "amount": amount}, facts)
                    sliced = engine.evaluate(tool, "treasury", payee, context)
                    full = _plain(engine, whole, tool, payee, context)
                    assert _answer(sliced) == _answer(full)
    for key, (part, _) in engine._slices.items():
        assert len(part) < len(whole), key


def _plain(
    engine: Engine, policies: cedarpy.PolicySet, tool: str, payee: str | None, context: dict
) -> cedarpy.AuthzResult:
    resource = "$none" if payee is None else payee if payee == "acme" else "$unknown"
    request = {
        "principal": 'Agent::"treasury"', "action": f'Action::"{tool}"', "resource": f'Payee::"{resource}"',
        "context": context,
    }  # fmt: skip
    return cedarpy.is_authorized(request, policies, engine._entities, engine._schema)


def _answer(result: cedarpy.AuthzResult) -> tuple:
    names = sorted(result.diagnostics.id_annotations_by_reason.values())
    return result.decision, names, len(result.diagnostics.errors)


def test_lifted_sets_are_kept_within_a_bound(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of policy sets without some ids never grows past its bound, and answers stay right."""
    monkeypatch.setattr("countermark.policy.engine.SLICES_MAX", 2)
    small = Engine(engine.bundle)
    for _ in range(2):
        assert ask(small, 501).disposition == "escalate"
        assert ask(small, 100, "p:1").disposition == "escalate"
        assert len(small._slices) <= 2


def test_a_bundle_read_back_decides_the_same(engine: Engine) -> None:
    """From the stored document alone the engine reaches the same verdicts, and the digest is the same."""
    again = Bundle.from_document(orjson.loads(engine.bundle.raw))
    assert again.digest == engine.bundle.digest
    other = Engine(again)
    for amount in (100, 201, 501, 1001):
        assert ask(other, amount) == ask(engine, amount)


def test_hours_are_half_open() -> None:
    """The first minute is inside, the last is outside, other days are outside."""
    engine = Engine(compiled(limits=LIMITS + '[hours]\nfrom = "08:00"\nto = "18:00"\ndays = [1, 2]\noutside = "ask"\n'))
    seen = {
        (day, minute): ask(engine, facts={"local_weekday": day, "local_minute": minute}).disposition
        for day, minute in ((1, 480), (1, 479), (2, 1079), (2, 1080), (3, 600))
    }
    assert seen == {
        (1, 480): "allow", (1, 479): "escalate", (2, 1079): "allow", (2, 1080): "escalate", (3, 600): "escalate",
    }  # fmt: skip
