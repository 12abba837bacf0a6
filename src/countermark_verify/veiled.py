"""V21: sealed runs, as far as a pack opens their values; one whose values are not here is not followed."""

from collections.abc import Mapping
from typing import Any

from countermark_verify import sealed, triggers
from countermark_verify.definition import Definition
from countermark_verify.disclosures import Disclosures
from countermark_verify.report import Ledger


class Veiled:
    """Opens records of sealed runs, and counts the runs that cannot be followed since a value is not shown."""

    def __init__(self, ledger: Ledger, disclosures: Disclosures) -> None:
        self._ledger, self._disclosures = ledger, disclosures
        self.subjects: dict[str, str | None] = {}  # of each open run of a workflow: None when it is clear
        self._shut: dict[str, str] = {}  # run -> its subject
        self._newest: dict[str, int] = {}  # by name: the last run that cancels those before it, and is not open here
        self.withheld = self.gone = 0

    def opened(self, seq: int, record: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The record's body, with its value where the pack shows it; and whether it is sealed and not shown."""
        kind, body = record["kind"], record["body"]
        subject = sealed.subject_of(record)
        run = body.get("run", "")
        if kind == "run.started" and "workflow" in body:
            self.subjects[run] = subject
        elif kind in sealed.KINDS and run in self.subjects and self.subjects[run] != subject:
            self._ledger.refute(
                "V21.step", "sealed for another subject than its run, or clear", seq, self.subjects[run], subject
            )
        if kind == "run.ended":
            self.subjects.pop(run, None)
        if subject is None:
            return body, False
        alias, digest = sealed.hidden(body)
        if self._disclosures.digest(seq, alias) == digest:
            value = self._disclosures.fields[seq, alias][1]
            if not sealed.misfit(alias, value):
                return sealed.opened(body, value), False
        self._shut.setdefault(run, subject)
        return body, True

    def shut(self, run: str) -> bool:
        """Whether a value of the run was not shown so far."""
        return run in self._shut

    def begins(self, seq: int, body: Mapping[str, Any], definition: Definition) -> bool:
        """Whether a run can be followed as far as this goes: it is sealed as its definition says, and open here."""
        run, refute = body["run"], self._ledger.refute
        subject = self.subjects.get(run)
        if (definition.subject is None) != (subject is None):
            refute("V21.start", "sealed, or clear, against its definition", seq, definition.subject, subject)
            return False
        if self.shut(run):
            concurrency = definition.document["concurrency"]
            if concurrency is not None and concurrency["cancel"]:
                self._newest[definition.name] = seq
            return False
        found = None if subject is None else triggers.subject_of(definition, body["workflow"]["inputs"])
        if found != subject:
            refute("V21.start", "the inputs name another subject", seq, found, subject)
        return True

    def ends(self, name: str, began: int) -> bool:
        """Whether a later run of this name, whose group nobody here can tell, may have ended one that began there."""
        return self._newest.get(name, -1) > began

    def erased(self, seq: int, record: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        """A record says that the subject's values are gone: its runs are not withheld any more."""
        subject = body["erasure"]["subject"]
        gone = [run for run, whose in self._shut.items() if whose == subject]
        for run in gone:
            del self._shut[run]
        self.gone += len(gone)

    def finish(self) -> None:
        self.withheld = len(self._shut)
        if self.withheld:
            message = (
                f"{self.withheld} runs of workflows were not followed: their values are sealed and not all disclosed, "
                "so that what they did, and what their code computes, cannot be established"
            )
            self._ledger.lack("V21.withheld", message, None, 0, self.withheld)
