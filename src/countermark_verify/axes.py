"""The evidence axes, derived from the steps; a pack never claims them (design of the evidence: five axes)."""

from countermark_verify.counts import Counts
from countermark_verify.effects import CONSISTENT, LEVELS, OBSERVED, VERIFIABLE
from countermark_verify.report import Ledger, moment
from countermark_verify.witnessed import Reach

Axis = dict[str, str]


def derive_axes(
    ledger: Ledger, counts: Counts, heads_agree: bool, cosigned: bool, reach: Reach | None = None
) -> dict[str, Axis]:
    """Axis -> {"level", "shown"}: how far the evidence reaches, and what that means in words."""
    return {
        "authority": _authority(ledger, counts),
        "integrity": _integrity(ledger, counts, heads_agree, cosigned, reach),
        "computation": _computation(ledger, counts),
        "effect": _effect(ledger, counts),
        "completeness": _completeness(ledger, counts),
    }


def _axis(level: str, shown: str) -> Axis:
    return {"level": level, "shown": shown}


def _refuted(ledger: Ledger, *steps: str) -> bool:
    return any(ledger.status(step) == "refuted" for step in steps)


def _authority(ledger: Ledger, counts: Counts) -> Axis:
    if _refuted(ledger, "V09", "V10", "V11", "V12", "V13", "V14"):
        return _axis("refuted", "mandates, policy, approvals or decisions contradict the records or the keys")
    if all(ledger.status(step) == "ok" for step in ("V09", "V10", "V13", "V14")):
        ap2 = "; AP2 mandates by keys that only the policy names" if counts.kinds.get("mandate.accepted") else ""
        if counts.asked and counts.proved == counts.asked:
            return _axis(
                "agent",
                "mandates, policy and people's answers are signed by keys that the auditor knows, decisions "
                f"recompute, and every action was asked for under a key that the policy enrols for its agent{ap2}",
            )
        return _axis(
            "mandate",
            "mandates, policy and people's answers are signed by keys that the auditor knows, and "
            f"decisions recompute; that the agent asked is the operator's word{ap2}",
        )
    return _axis("operator", "the operator says who asked and who granted; signatures or decisions are not all checked")


def _integrity(ledger: Ledger, counts: Counts, heads_agree: bool, cosigned: bool, reach: Reach | None) -> Axis:
    if _refuted(ledger, "V02", "V03", "V04", "V05", "V06", "V07", "V08", "V16", "V17"):
        return _axis("refuted", "the records are not the log that was signed or retained")
    whole = _whole(counts, heads_agree, cosigned, reach)
    if counts.anchored:
        # An anchor covers what stood in the log before it; the later records rest on what the whole log rests on.
        return _axis("anchored", f"{counts.anchored}; the whole log: {whole['shown']}")
    return whole


def _whole(counts: Counts, heads_agree: bool, cosigned: bool, reach: Reach | None) -> Axis:
    seen, existed = _seen(reach), _existed(counts)
    if cosigned:
        level = "time-stamped" if existed else "witnessed"
        return _axis(level, f"independent witnesses cosigned exactly this head{seen}{existed}")
    if heads_agree:
        nobody = "" if seen else "; nobody independent cosigned it"
        return _axis("retained", f"the log equals the heads that the auditor retained{nobody}{seen}{existed}")
    later = " later" if seen else ""
    said = f"the records form a log; a{later} rewrite with the deployment's own keys would not show"
    return _axis("log", f"{said}{seen}{existed}")


def _seen(reach: Reach | None) -> str:
    """Until which record, by whom and when the log was witnessed, as its own records show."""
    if reach is None:
        return ""
    at = moment(reach.at)
    return f"; {', '.join(reach.operators)} saw the first {reach.size} records (seq {reach.seq}, {at})"


def _existed(counts: Counts) -> str:
    """What a time stamp adds. An authority of time sees a digest, not a log: it would stamp two histories. So it adds
    to what excludes a second history, and replaces nothing.
    """
    time = counts.time
    if time["at"] is None:
        return ""
    return f"; the first {time['covers']} records existed at {moment(time['at'])}, by the clock of {time['authority']}"


def _computation(ledger: Ledger, counts: Counts) -> Axis:
    if _refuted(ledger, "V21"):
        return _axis("refuted", "runs of workflows contradict their definitions, or outputs are not what code computes")
    sources = "a bundle's sources are not compiled again"
    done = counts.workflows.recomputed if counts.workflows is not None else None
    if done is None or not done.executed:
        missing = f" ({done.missing})" if done is not None and done.missing else ""
        return _axis("recorded", f"pure steps are recorded outputs, none was executed again{missing}; {sources}")
    if done.executed < done.total:
        shown = f"of {done.total} pure steps {done.executed} were executed again, to the same outputs; {sources}"
        return _axis("recorded", shown)
    return _axis("re-executed", f"all {done.total} pure steps were executed again, to the same outputs; {sources}")


def _effect(ledger: Ledger, counts: Counts) -> Axis:
    if _refuted(ledger, "V11", "V20"):
        return _axis("refuted", "outcomes contradict the intents, or the other side's evidence")
    if "observing" in counts.tiers:  # the weakest decides
        some = "" if counts.tiers == {"observing"} else "some of "
        return _axis("reported", f"the agent's side reported {some}the outcomes")
    proved = counts.effects[VERIFIABLE] + counts.effects[CONSISTENT]
    if not proved:
        return _axis(OBSERVED, "the gate recorded the provider's answers; nothing corroborates them here")
    total = proved + counts.effects[OBSERVED]
    shown = (
        f"of {total} confirmed effects {counts.effects[VERIFIABLE]} are proved to blocks that the auditor knows, "
        f"{counts.effects[CONSISTENT]} to blocks that nobody here vouches for"
    )
    # A run's headline is its weakest effectful step, and so is a pack's.
    return _axis(next(level for level in LEVELS if counts.effects[level]), shown)


def _completeness(ledger: Ledger, counts: Counts) -> Axis:
    if _refuted(ledger, "V05", "V06", "V11", "V15", "V18"):
        return _axis("refuted", "records are missing, out of order, or counted otherwise")
    if ledger.status("V07") != "ok":
        return _axis("none", "later records, or a shorter log, cannot be excluded")
    if counts.extract and ledger.status("V18") != "ok":
        return _axis("none", "no closed epoch shows that nothing is missing of what this extract is about")
    if ledger.status("V11") != "ok":
        return _axis(
            "open", "streams have no gaps, but intents have no outcome; not reconciled with a provider's books"
        )
    if counts.extract:
        return _axis(
            "closed epoch", "the epochs that cover it have nothing more of what this extract is about; not reconciled "
            "with a provider's books",
        )  # fmt: skip
    return _axis("gap-free", "streams have no gaps up to the trusted head; not reconciled with a provider's books")
