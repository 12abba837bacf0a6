"""The evidence axes, derived from the steps; a pack never claims them (design of the evidence: five axes)."""

from countermark_verify.counts import Counts
from countermark_verify.report import Ledger

Axis = dict[str, str]


def derive_axes(ledger: Ledger, counts: Counts, heads_agree: bool, cosigned: bool) -> dict[str, Axis]:
    """Axis -> {"level", "shown"}: how far the evidence reaches, and what that means in words."""
    return {
        "authority": _authority(ledger, counts),
        "integrity": _integrity(ledger, heads_agree, cosigned),
        "computation": _axis(
            "recorded",
            "pure steps are recorded outputs, none was executed again; a bundle's sources are not compiled again",
        ),
        "effect": _effect(ledger, counts),
        "completeness": _completeness(ledger, counts),
    }


def _axis(level: str, shown: str) -> Axis:
    return {"level": level, "shown": shown}


def _refuted(ledger: Ledger, *steps: str) -> bool:
    return any(ledger.status(step) == "refuted" for step in steps)


def _authority(ledger: Ledger, counts: Counts) -> Axis:
    if _refuted(ledger, "V09", "V10", "V11", "V12", "V14"):
        return _axis("refuted", "mandates, policy, approvals or decisions contradict the records or the keys")
    if all(ledger.status(step) == "ok" for step in ("V09", "V10", "V14")):
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


def _integrity(ledger: Ledger, heads_agree: bool, cosigned: bool) -> Axis:
    if _refuted(ledger, "V02", "V03", "V04", "V05", "V06", "V07", "V08"):
        return _axis("refuted", "the records are not the log that was signed or retained")
    if cosigned:
        return _axis("witnessed", "independent witnesses cosigned exactly this head")
    if heads_agree:
        return _axis("retained", "the log equals the heads that the auditor retained; nobody independent cosigned it")
    return _axis("log", "the records form a log; a rewrite with the deployment's own keys would not show")


def _effect(ledger: Ledger, counts: Counts) -> Axis:
    if _refuted(ledger, "V11"):
        return _axis("refuted", "outcomes contradict the intents")
    if "observing" in counts.tiers:  # the weakest decides
        some = "" if counts.tiers == {"observing"} else "some of "
        return _axis("reported", f"the agent's side reported {some}the outcomes")
    return _axis("gate observed", "the gate recorded the provider's answers; nothing corroborates them here")


def _completeness(ledger: Ledger, counts: Counts) -> Axis:
    if _refuted(ledger, "V05", "V06", "V11", "V15"):
        return _axis("refuted", "records are missing, out of order, or counted otherwise")
    if ledger.status("V07") != "ok":
        return _axis("none", "later records, or a shorter log, cannot be excluded")
    if ledger.status("V11") != "ok":
        return _axis(
            "open", "streams have no gaps, but intents have no outcome; not reconciled with a provider's books"
        )
    return _axis("gap-free", "streams have no gaps up to the trusted head; not reconciled with a provider's books")
