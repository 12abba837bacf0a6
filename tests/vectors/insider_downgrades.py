"""What a pack may look as if it had, and has not: for every level of every axis an honest pack and forged ones.

An insider has the database, all of the operator's keys and the writer of packs; the auditor has a trust file. `CLAIMS`
says for each level which pack reaches it, and to what the verifier lowers those that only seem to.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from build import ORIGIN, Pack, b64, canonical, cosignature_line, head_of, note_text, root_of, stream, verifier_key
from bundle import plain_bundle
from cases import Case, case, tiny_story, trust
from chain import chain_trust
from extracts import MONDAY, TUESDAY, WEDNESDAY, agent_day, close, cut, few, proof_document, rows_of
from insider_anchors import anchored, bodies
from insider_effects import Payment, on_chain, paid
from insider_effects import judged as paid_before
from insider_effects import pay as pay_on_chain
from insider_erasures import erased
from insider_extracts import CLERK_MONDAY, whole_trust
from insider_keys import NEXT, ROTATED, rotate, rotated_log
from insider_signed import pay_signed, signed_bundle
from insider_time import OWN, TSA, stamp
from insider_witnesses import WANTING, auditors, key_of, saw, vkey_of
from lies import lie
from scribe import Story
from story import opened, pack_of, pay

PAYER_MONDAY = agent_day("payer", "2026-11-02", MONDAY)
DAY_US = TUESDAY - MONDAY


@dataclass(frozen=True)
class Lowered:
    """A forged pack, the level that it gets instead, and words that the verifier says of it."""

    case: str
    level: str
    shown: str


@dataclass(frozen=True)
class Claim:
    """A level, a pack that reaches it, and packs that do not."""

    axis: str
    level: str
    honest: str
    forged: tuple[Lowered, ...]


# --- authority ---


@lie("V10.request")
def request_signed_with_a_key_that_a_later_policy_enrols(story: Story) -> int:
    """The insider makes a key, signs for the agent, and enrols the key afterwards."""
    action = pay_signed(story, 1)
    story.settle(action)
    story.activate(signed_bundle())
    return int(action.seq) - 1


@case
def people_whom_nobody_knows() -> Case:
    """Every signature verifies, under keys that the policy names and the auditor has from nobody."""
    story = tiny_story()
    document = trust([head_of(story.log.leaves)])
    return Case(pack_of(story).write(), "incomplete", ["V09.no_key"], None, document | {"people": {}})


# --- integrity ---


@case
def only_a_head_of_no_records_retained() -> Case:
    """The operator hands out a head of the empty log, with which every log agrees."""
    story = tiny_story()
    empty = {"size": 0, "root": b64(hashlib.sha256(b"").digest()), "source": "handed out on the first day"}
    return Case(pack_of(story).write(), "incomplete", ["V07.no_trust"], None, trust([empty]))


@case
def only_a_head_of_another_log_retained() -> Case:
    story = tiny_story()
    head = head_of(tiny_story(20_000).log.leaves) | {"origin": "countermark/acme/l9"}
    return Case(pack_of(story).write(), "incomplete", ["V07.no_trust"], None, trust([head]))


def _cosigned(story: Story, names: tuple[str, ...], size: int = 0) -> Pack:
    """The pack, its head with lines of witnesses, made over the head of `size`."""
    size = size or len(story.log.leaves)
    text = note_text(size, root_of(story.log.leaves[:size]))
    pack = pack_of(story)
    for name in names:
        line = cosignature_line(text, key_of(name), vkey_of(name).partition("+")[0], story.now // 1_000_000)
        pack.members["log/checkpoint"] += line
    return pack.sealed()


def _seen(story: Story, names: tuple[str, ...], *codes: str, size: int = 0, **more: Any) -> Case:
    shown = trust([], witnesses=auditors("north", "south"), **more)
    verdict = "verified" if not codes else "refuted" if codes == ("V08.cosignature",) else "incomplete"
    return Case(_cosigned(story, names, size).write(), verdict, list(codes), None, shown)


@case
def head_cosigned_by_the_operator_for_one_of_two() -> Case:
    return _seen(tiny_story(), ("north", "acme/own"), "V07.no_trust")


@case
def head_with_an_old_quorum_replayed() -> Case:
    """Both witnesses' lines are genuine, of the head before the last payment."""
    story = tiny_story()
    return _seen(story, ("north", "south"), "V08.cosignature", size=len(story.log.leaves) - 2)


@case
def head_cosigned_by_witnesses_that_nobody_knows() -> Case:
    return _seen(tiny_story(), ("east", "west"), "V07.no_trust")


@case
def witnessed_by_the_auditors_a_week_after_its_record() -> Case:
    """Written back: the policy's own witnesses sign any time, the line of the auditor's is of a week later."""
    story = opened("written back", **WANTING)
    text = note_text(len(story.log.leaves), root_of(story.log.leaves))
    late = story.now // 1_000_000 + 7 * 86_400
    line = cosignature_line(text, key_of("east"), vkey_of("east").partition("+")[0], late)
    seq = saw(story, alter=lambda body: body.update(note=body["note"] + line.decode()))
    shown = trust([head_of(story.log.leaves)], witnesses=auditors("east", quorum=1))
    return Case(pack_of(story).write(), "refuted", ["V08.record"], seq, shown)


def _stamped(story: Story, by: Any = TSA) -> Story:
    stamp(story, by.token, by.name)
    return story


def _authorities(*authorities: Any) -> dict[str, Any]:
    return {"stamps": [{"certificate": one.pem, "operator": one.name} for one in authorities]}


@case
def honest_stamped_and_cosigned() -> Case:
    return _seen(_stamped(tiny_story()), ("north", "south"), **_authorities(TSA))


@case
def cosigned_and_stamped_by_the_operators_own_authority() -> Case:
    return _seen(_stamped(tiny_story(), OWN), ("north", "south"), "V16.none", **_authorities(TSA, OWN))


@case
def stamped_and_nobody_cosigned() -> Case:
    """An authority stamps whatever it gets, two histories if asked."""
    story = _stamped(tiny_story())
    return Case(pack_of(story).write(), "incomplete", ["V07.no_trust"], None, trust([], **_authorities(TSA)))


@case
def anchored_in_a_contract_that_the_auditor_does_not_name() -> Case:
    story = anchored()
    chains = [{name: one[name] for name in ("chain_id", "blocks")} for one in chain_trust(*bodies(story))]
    return Case(pack_of(story).write(), "verified", [], None, trust([head_of(story.log.leaves)], chains=chains))


def closed(story: Story) -> Story:
    """The same log a day later, with its epochs closed."""
    story.now = max(story.now, MONDAY + DAY_US)
    last = verifier_key(ORIGIN, story.next_key or story.log_key)
    story.start(lambda body: body.update(log_key=last))
    story.now += 1_000_000
    if story.log.records[0]["at"] < MONDAY + DAY_US:
        close(story, MONDAY + DAY_US)
    close(story)
    return story


def _extract(story: Story, verdict: str = "verified", *codes: str, **more: Any) -> Case:
    data = cut(closed(story), PAYER_MONDAY).pack().write()
    return Case(data, verdict, list(codes), None, whole_trust(story) | more)


@case
def extract_with_anchors() -> Case:
    """The roots in anchors cannot be compared with a tree that is not there: they raise nothing."""
    story = anchored()
    return _extract(story, chains=chain_trust(*bodies(story)))


@case
def extract_with_stamps() -> Case:
    return _extract(_stamped(tiny_story()), **_authorities(TSA))


@case
def extract_with_witnesses_of_its_records() -> Case:
    """That a `head.witnessed` in it is of this history cannot be told; its own head nobody cosigned."""
    story = opened("seen", **WANTING)
    saw(story)
    return _extract(story, "incomplete", "V08.quorum", witnesses=auditors("north", "south"))


@case
def extract_with_an_erasure_of_other_records() -> Case:
    """What was erased a month later took records that the day does not have."""
    return _extract(erased())


@case
def extract_with_a_rotation() -> Case:
    """The auditor knows the key from before."""
    return _extract(rotated_log())


@case
def extract_under_a_key_that_was_handed_over() -> Case:
    """The auditor knows the new key only; the log began under another."""
    story = rotated_log()
    made = cut(closed(story), PAYER_MONDAY).pack()
    made.log_key = NEXT
    keys = {"log": {"origin": ORIGIN, "keys": [verifier_key(ORIGIN, NEXT)]}}
    return Case(made.sealed().write(), "verified", [], None, whole_trust(story) | keys)


@case
def start_under_what_is_no_key_after_a_rotation() -> Case:
    """After the log was handed over a start names a text that has the form of no key: nobody can have signed by it."""
    story = rotated_log()
    story.start(lambda body: body.update(log_key=verifier_key(ORIGIN, NEXT).replace("+", "+0", 1)))
    head = head_of(story.log.leaves)
    return Case(pack_of(story).write(), "refuted", ["V03.signature", "V03.mismatch"], 9, trust([head]))


@case
def head_by_the_key_that_was_given_up() -> Case:
    """Whoever kept the old key signs on after it was handed over."""
    story = opened("given up", **ROTATED)
    rotate(story)
    story.next_key = None
    story.settle(pay(story, 1))
    return Case(pack_of(story).write(), "refuted", ["V03.signature"], None, trust([head_of(story.log.leaves)]))


@case
def extract_of_a_fork_signed_by_a_stolen_key() -> Case:
    """A head from before the theft, of a size below: nobody can tell whether it is of the history in the extract."""
    story = opened("fork", bundle=plain_bundle("fork"))
    close(story)
    stolen = next(record["body"]["key"] for record in story.log.records if record["kind"] == "mandate.granted")
    old = head_of(tiny_story().log.leaves[:3]) | {"at": MONDAY}
    scope = {"kind": "period", "from": MONDAY, "to": story.log.records[-1]["body"]["until"]}
    document = trust([head_of(story.log.leaves), old], compromised=[{"key": stolen, "since": MONDAY + 1}])
    return Case(cut(story, scope).pack().write(), "incomplete", ["V10.compromised"], None, document)


# --- effect ---


@case
def one_payment_proved_and_one_not() -> Case:
    story = on_chain("half proved")
    paid(story, Payment())
    story.settle(pay_on_chain(story, 7))
    return paid_before(story, "verified", [])


# --- completeness ---


def _hidden(story: Story) -> Case:
    """The clerk's Monday as `none`: the log's own epoch does not name the clerk's stream."""
    clerk = stream("a", "clerk")
    story.now = WEDNESDAY
    size = bisect_left([record["at"] for record in story.log.records], TUESDAY)
    rows = [row for row in rows_of(story, 0, size) if row[0] != clerk]
    close(story, TUESDAY, rows=rows)
    made = cut(story, CLERK_MONDAY)
    made.seqs = [seq for seq in made.seqs if "g" in story.log.records[seq]["streams"]]
    made.members["epochs/0.json"] = canonical(proof_document(0, rows, (clerk, "g")))
    return Case(made.pack().write(), "incomplete", ["V18.extract"], None, trust([head_of(story.log.leaves)]))


@case
def extract_none_by_an_epoch_with_a_hidden_stream() -> Case:
    return _hidden(few())


@case
def extract_of_a_period_longer_than_its_epochs() -> Case:
    story = closed(tiny_story())
    scope = {"kind": "period", "from": MONDAY, "to": MONDAY + 9 * DAY_US}
    return Case(cut(story, scope).pack().write(), "incomplete", ["V18.open"], None, whole_trust(story))


@case
def extract_of_a_shorter_log_than_the_auditor_has() -> Case:
    """An old extract, from before records that the auditor knows of."""
    story = closed(tiny_story())
    document = trust([head_of(story.log.leaves) | {"verified": True}, head_of([*story.log.leaves, b"later"])])
    return Case(cut(story, PAYER_MONDAY).pack().write(), "incomplete", ["V07.truncated"], None, document)


@case
def stolen_key_of_a_person_in_an_extract_verified_by_the_auditor() -> Case:
    """A head in time below the one up to which the auditor verified everything: what it holds is older."""
    story = closed(tiny_story())
    stolen = next(record["body"]["key"] for record in story.log.records if record["kind"] == "mandate.granted")
    early = head_of(story.log.leaves[:5]) | {"at": MONDAY}
    heads = [head_of(story.log.leaves) | {"verified": True}, early]
    document = trust(heads, compromised=[{"key": stolen, "since": MONDAY + 1}])
    return Case(cut(story, PAYER_MONDAY).pack().write(), "verified", [], None, document)


LOG = "a rewrite with the deployment's own keys would not show"
CONTRADICT = "contradict the records or the keys"
NOT_THE_LOG = "not the log that was signed or retained"
MISSING = "records are missing, out of order, or counted otherwise"

CLAIMS = (
    Claim("authority", "operator", "no-key-of-the-activator", (
        Lowered("mandate-foreign-key", "refuted", CONTRADICT),
    )),
    Claim("authority", "mandate", "honest-erased", (
        Lowered("people-whom-nobody-knows", "operator", "signatures or decisions are not all checked"),
        Lowered("extract-facts-not-verified", "operator", "signatures or decisions are not all checked"),
        Lowered("fact-clock-altered", "refuted", CONTRADICT),
    )),
    Claim("authority", "agent", "honest-signed-throughout", (
        Lowered("honest-signed", "mandate", "that the agent asked is the operator's word"),
        Lowered("request-signed-with-a-key-that-a-later-policy-enrols", "refuted", CONTRADICT),
        Lowered("request-signed-with-a-foreign-key", "refuted", CONTRADICT),
    )),
    Claim("integrity", "log", "no-head-retained", (
        Lowered("record-deleted-tree-rebuilt", "refuted", NOT_THE_LOG),
    )),
    Claim("integrity", "retained", "honest-erased", (
        Lowered("only-a-head-of-no-records-retained", "log", LOG),
        Lowered("only-a-head-of-another-log-retained", "log", LOG),
        Lowered("extract-of-another-size", "log", LOG),
        Lowered("head-by-the-key-that-was-given-up", "refuted", NOT_THE_LOG),
    )),
    Claim("integrity", "witnessed", "honest-newest-witnessed-head", (
        Lowered("head-cosigned-by-the-operator-for-one-of-two", "log", LOG),
        Lowered("head-cosigned-by-witnesses-that-nobody-knows", "log", LOG),
        Lowered("witness-run-by-the-operator", "retained", "nobody independent cosigned it"),
        Lowered("head-with-an-old-quorum-replayed", "refuted", NOT_THE_LOG),
        Lowered("witnessed-quorum-of-an-old-day-replayed", "refuted", NOT_THE_LOG),
        Lowered("records-later-than-the-witnessed-head", "log", "north, south saw the first 8 records"),
        Lowered("extract-with-witnesses-of-its-records", "retained", "nobody independent cosigned it"),
    )),
    Claim("integrity", "time-stamped", "honest-stamped-and-cosigned", (
        Lowered("cosigned-and-stamped-by-the-operators-own-authority", "witnessed", "cosigned exactly this head"),
        Lowered("stamped-and-nobody-cosigned", "log", LOG),
        Lowered("honest-stamped", "retained", "nobody independent cosigned it; the first 9 records existed at"),
        Lowered("stamp-replayed-on-a-later-head", "refuted", NOT_THE_LOG),
        Lowered("extract-with-stamps", "retained", "nobody independent cosigned it"),
    )),
    Claim("integrity", "anchored", "honest-anchored", (
        Lowered("anchored-in-a-block-that-nobody-pinned", "retained", "nobody independent cosigned it"),
        Lowered("anchored-in-a-contract-that-the-auditor-does-not-name", "retained", "nobody independent"),
        Lowered("anchor-in-another-contract", "refuted", NOT_THE_LOG),
        Lowered("anchor-from-another-chain", "refuted", NOT_THE_LOG),
        Lowered("extract-with-anchors", "retained", "nobody independent cosigned it"),
    )),
    Claim("computation", "recorded", "honest-outputs", (
        Lowered("output-of-another-type", "recorded", "none was executed again"),
    )),
    Claim("computation", "re-executed", "honest-workflow", (
        Lowered("workflow-output-altered-with-its-digest", "refuted", "not what code computes"),
        Lowered("workflow-step-skipped", "refuted", "contradict their definitions"),
    )),
    Claim("effect", "reported", "honest-observing", (
        Lowered("report-of-a-caller-under-an-ordinary-code", "refuted", "outcomes contradict the intents"),
    )),
    Claim("effect", "gate observed", "honest-erased", (
        Lowered("honest-callers", "reported", "the agent's side reported some of the outcomes"),
        Lowered("gate-ran-it-and-calls-it-observed", "refuted", "outcomes contradict the intents"),
    )),
    Claim("effect", "self-consistent", "paid-in-a-block-that-nobody-pinned", (
        Lowered("tokens-that-the-event-does-not-show", "refuted", "the other side's evidence"),
    )),
    Claim("effect", "counterparty verifiable", "honest-paid-on-a-chain", (
        Lowered("paid-in-a-block-that-nobody-pinned", "self-consistent", "1 to blocks that nobody here vouches for"),
        Lowered("one-payment-proved-and-one-not", "gate observed", "of 2 confirmed effects 1 are proved"),
        Lowered("chain-payment-shown-twice", "refuted", "the other side's evidence"),
        Lowered("paid-in-another-block-than-the-auditors", "refuted", "the other side's evidence"),
    )),
    Claim("completeness", "none", "no-head-retained", (
        Lowered("seq-gap", "refuted", MISSING),
    )),
    Claim("completeness", "open", "open-intent", (
        Lowered("two-outcomes", "refuted", MISSING),
    )),
    Claim("completeness", "gap-free", "honest-erased", (
        Lowered("open-intent", "open", "intents have no outcome"),
        Lowered("tail-truncated", "none", "later records, or a shorter log, cannot be excluded"),
    )),
    Claim("completeness", "closed epoch", "extract-agent-day", (
        Lowered("extract-of-an-open-day", "none", "no closed epoch shows that nothing is missing"),
        Lowered("extract-of-a-period-longer-than-its-epochs", "none", "no closed epoch shows"),
        Lowered("extract-none-by-an-epoch-with-a-hidden-stream", "none", "no closed epoch shows"),
        Lowered("extract-of-a-shorter-log-than-the-auditor-has", "none", "a shorter log, cannot be excluded"),
        Lowered("extract-outcome-left-out", "refuted", MISSING),
        Lowered("epoch-with-a-hidden-stream", "refuted", MISSING),
    )),
)  # fmt: skip
