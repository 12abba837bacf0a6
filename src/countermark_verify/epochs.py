"""V18: closed epochs (docs/spec/record.md), over all records or, in an extract, over those that are its subject's."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from countermark_verify import canon
from countermark_verify.container import PROOF_BYTES_MAX
from countermark_verify.errors import Malformed
from countermark_verify.extract import Row
from countermark_verify.multiproof import root_of_chosen
from countermark_verify.report import Ledger
from countermark_verify.scope import Scope, day_bounds
from countermark_verify.shape import const, fixed, integer, listing, record, text
from countermark_verify.streams import GENERAL, skim
from countermark_verify.tree import Tree, leaf_hash

PROOF_HASHES_MAX = 4_096
_DIGEST = text(r"sha256:[0-9a-f]{64}")
_NAME = text(r"g|[arpw]\.[0-9a-f]{32}")
_ROWS_MAX = 8  # two streams: an entry of each, or two neighbours
_PROOF = record(
    {
        "v": const(1),
        "epoch": integer(0),
        "rows": listing(fixed(integer(0), _NAME, integer(0), integer(0), _DIGEST), _ROWS_MAX),
        "proof": listing(text(r"[0-9a-f]{64}"), PROOF_HASHES_MAX),
    }
)


@dataclass(frozen=True, slots=True)
class Claim:
    """What an `epoch.closed` record says, at its own place."""

    seq: int
    number: int
    start: int
    size: int
    until: int
    root: str
    streams: int
    manifest: str


class Epochs:
    """Follows the epochs in the pass over the records."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        ledger.ran("V18")
        self.claims: list[Claim] = []

    def check(self, seq: int, record: Mapping[str, Any]) -> None:
        """Each epoch goes on where the one before ended, and covers what was there."""
        if record["kind"] != "epoch.closed":
            return
        self._ledger.ran("V18", 1)
        body = record["body"]
        number, size, until = len(self.claims), 0, 0
        if self.claims:
            size, until = self.claims[-1].size, self.claims[-1].until
        found, expected = [body["epoch"], body["from"]], [number, size]
        if found != expected:
            self._ledger.refute("V18.chain", "not the epoch after the one before", seq, expected, found)
        elif not size < body["size"] <= seq or body["until"] <= until:
            found, expected = [body["size"], body["until"]], [size, until]
            self._ledger.refute("V18.chain", "an epoch that is empty, or reaches further than the log", seq, expected,
                                found)  # fmt: skip
        else:
            names = ("epoch", "from", "size", "until", "root", "streams", "manifest")
            self.claims.append(Claim(seq, *(body[name] for name in names)))

    def whole(self, entries: Callable[[], Iterable[bytes]], tree: Tree, unreadable: int) -> None:
        """Every epoch made again from the records, in a second pass over them; not when some cannot be read."""
        if not self.claims:
            return
        if unreadable:
            self._ledger.lack("V18.unreadable", "not made again: some records cannot be read")
            return
        waiting = iter(self.claims)
        claim = next(waiting)
        touched: dict[str, list[Any]] = {}
        for seq, raw in enumerate(entries()):
            at, streams = skim(raw)
            if seq == claim.size:
                self.compare(claim, touched, tree.root_at(seq).hex())
                self._time(claim, seq, at, late=True)
                touched = {}
                following = next(waiting, None)
                if following is None:
                    return
                claim = following
            self._time(claim, seq, at, late=False)
            touch(touched, streams, canon.digest("record", raw))

    def _time(self, claim: Claim, seq: int, at: int, *, late: bool) -> None:
        if (at >= claim.until) != late:
            message = "outside an epoch that ends later" if late else "within an epoch that ends before it"
            self._ledger.refute("V18.until", message, seq, claim.until, at)

    def compare(self, claim: Claim, touched: dict[str, list[Any]], root: str | None) -> None:
        rows = sorted((name, *row) for name, row in touched.items())
        hashes = [leaf_hash(canon.render(list(row))) for row in rows]
        again = root_of_chosen(list(enumerate(hashes)), len(hashes), []).hex() if hashes else ""
        if root is not None and root != claim.root:
            self._ledger.refute("V18.root", "not the tree's root at its end", claim.seq, root, claim.root)
        if (len(rows), again) != (claim.streams, claim.manifest):
            message = "not the streams that have records in the epoch"
            self._ledger.refute("V18.manifest", message, claim.seq, [len(rows), again],
                                [claim.streams, claim.manifest])  # fmt: skip


def touch(touched: dict[str, list[Any]], streams: Mapping[str, Any], digest: str) -> None:
    for name, (place, _) in streams.items():
        row = touched.setdefault(name, [place, place, digest])
        row[1:] = place, digest


class Presence:
    """What an extract shows of its subject: everything between two ends of epochs, or that there is nothing."""

    def __init__(
        self, ledger: Ledger, epochs: Epochs, scope: Scope, members: Mapping[str, memoryview], rows: list[Row]
    ) -> None:
        self._ledger = ledger
        self._epochs = epochs
        self._scope = scope
        self._members = members
        self._rows = rows
        self._seqs = [row.seq for row in rows]
        # Stream -> where it stood after the epoch before.
        self._places: dict[str, int] = {}
        # How many records of the subject the epochs show; None while that is not established.
        self.records: int | None = None
        self.inside: int | None = None  # of these, how many are dated within the scope's times: an epoch may be longer

    def check(self, zones: Iterable[str], verified: bool) -> None:
        """All of V18 that an extract is held to; `zones` are those of the policies in the pack.

        `verified`: the auditor verified the whole log, and so that its epochs hide nothing.
        """
        self._ledger.ran("V18", len(self._rows))
        if not verified:
            message = "whether the log's epochs name all of its streams was verified by nobody: one may be hidden"
            self._ledger.lack("V18.extract", message)
        self._times()
        self._day(frozenset(zones))
        window = self._window()
        self._named(window)
        if window:
            self._placed(window[0].start, window[-1].size)
        if self._scope.subject is None:
            self._period(window)
        else:
            for claim in window:
                self._shown(claim, self._scope.subject)
            self._began(window)
        if window and self._ledger.status("V18") == "ok":
            low, high = window[0].start, window[-1].size
            subject = self._scope.subject
            of = [row for row in self._rows if low <= row.seq < high and (subject is None or subject in row.streams)]
            self.records = len(of)
            self.inside = sum(self._scope.start <= row.at < self._scope.end for row in of)

    def _window(self) -> list[Claim]:
        """The epochs from the one that the scope begins in to the one that it ends in."""
        scope, claims = self._scope, self._epochs.claims
        if scope.end <= scope.start:
            self._ledger.refute("V18.scope", "ends before it begins", None, scope.start, scope.end)
        if not claims or claims[-1].until < scope.end:
            until = claims[-1].until if claims else None
            self._ledger.lack(
                "V18.open", "no epoch that was closed reaches the end of the scope", None, scope.end, until
            )
        last = next((claim.number for claim in claims if claim.until >= scope.end), len(claims) - 1)
        return [claim for claim in claims[: last + 1] if claim.until > scope.start]

    def _times(self) -> None:
        """Of the records that are there, those before an epoch's end are earlier than its time, and no others."""
        for claim in self._epochs.claims:
            place = bisect_left(self._seqs, claim.size)
            for row in self._rows[max(place - 1, 0) : place + 1]:
                if (row.at >= claim.until) != (row.seq >= claim.size):
                    self._ledger.refute(
                        "V18.until", "on the wrong side of an epoch's end", row.seq, claim.until, row.at
                    )

    def _day(self, zones: frozenset[str]) -> None:
        document = self._scope.document
        if "day" not in self._scope.document:
            return
        if document["zone"] not in zones:
            self._ledger.refute("V18.scope", "a day in a zone of no policy", None, sorted(zones), document["zone"])
        try:
            bounds = day_bounds(document["day"], document["zone"])
        except (KeyError, ValueError, OSError, OverflowError):
            self._ledger.lack("V18.no_zone", f"no such day, or no time zone {document['zone']!a} on this machine")
            return
        if bounds != (self._scope.start, self._scope.end):
            self._ledger.refute("V18.scope", "other times than those of the day", None, bounds,
                                [self._scope.start, self._scope.end])  # fmt: skip

    def _named(self, window: list[Claim]) -> None:
        wanted = {f"epochs/{claim.number}.json" for claim in window if self._scope.subject is not None}
        found = {name for name in self._members if name.startswith("epochs/")}
        if wanted != found:
            missing, extra = sorted(wanted - found)[:20], sorted(found - wanted)[:20]
            self._ledger.refute("V18.members", "not the proofs of the scope's epochs", None, missing, extra)

    def _placed(self, low: int, high: int) -> None:
        """Every record is the subject's, or of the general stream; outside the epochs only what belongs to it."""
        subject = self._scope.subject
        within = [row for row in self._rows if low <= row.seq < high]
        actions = {row.action for row in within if subject is None or subject in row.streams} - {""}
        runs = {row.run for row in within if subject is None or subject in row.streams} - {""}
        for row in self._rows:
            own = subject is None or subject in row.streams
            if GENERAL in row.streams or (own and low <= row.seq < high):
                continue
            begins = row.kind in ("run.started", "run.ended") and row.run in runs
            if not own or not (begins or row.action in actions):
                self._ledger.refute("V18.scope", "a record that the scope does not have", row.seq, None, row.kind)
        wanted = self._scope.document.get("action")
        if wanted is not None and all(row.action != wanted for row in self._rows):
            self._ledger.refute("V18.scope", "the action that the case is about is not there", None, wanted)

    def _period(self, window: list[Claim]) -> None:
        """Everything is there, so the manifests themselves are made again."""
        for claim in window:
            first, stop = (bisect_left(self._seqs, seq) for seq in (claim.start, claim.size))
            if stop - first != claim.size - claim.start:
                seqs = enumerate(self._seqs[first:stop], claim.start)
                hidden = next((place for place, seq in seqs if seq != place), claim.start + stop - first)
                self._ledger.refute("V18.hidden", "a record of the period is not there", hidden)
                continue
            touched: dict[str, list[Any]] = {}
            for row in self._rows[first:stop]:
                touch(touched, row.streams, row.digest)
            self._epochs.compare(claim, touched, None)

    def _shown(self, claim: Claim, subject: str) -> None:
        """The subject's stream and the general one, as the epoch's manifest has them."""
        data = self._members.get(f"epochs/{claim.number}.json")
        if data is None:
            return
        try:
            rows = _proof(bytes(data), claim)
            for stream in (subject, GENERAL):
                self._stream(claim, stream, _entry(rows, stream, claim.streams))
        except Malformed as error:
            self._ledger.refute("V18.proof", f"epochs/{claim.number}.json {error}", claim.seq)

    def _stream(self, claim: Claim, stream: str, entry: tuple[int, int, str] | None) -> None:
        first, stop = (bisect_left(self._seqs, seq) for seq in (claim.start, claim.size))
        own = [row for row in self._rows[first:stop] if stream in row.streams]
        places = [row.streams[stream][0] for row in own]
        if entry is None:
            if own:
                self._ledger.refute("V18.proof", f"the manifest does not have {stream}", own[0].seq)
            return
        if entry[0] != self._places.get(stream, entry[0]):
            self._ledger.refute("V18.chain", f"{stream} does not go on where it ended", claim.seq,
                                self._places[stream], entry[0])  # fmt: skip
        self._places[stream] = entry[1] + 1
        if places != list(range(entry[0], entry[0] + len(places))) or len(places) != entry[1] - entry[0] + 1:
            there = next(
                (place for place, found in enumerate(places, entry[0]) if place != found), entry[0] + len(places)
            )
            message = f"a record of {stream} is not there: the one at its place {there}"
            self._ledger.refute("V18.hidden", message, claim.seq, list(entry[:2]), places[:20])
        elif own[-1].digest != entry[2]:
            self._ledger.refute("V18.hidden", f"{stream} ends in another record", own[-1].seq, entry[2], own[-1].digest)

    def _began(self, window: list[Claim]) -> None:
        """A case is a run from its beginning."""
        if self._scope.kind != "case":
            return
        subject = self._scope.subject or ""
        start = window[0].start if window else 0
        own = (row.streams[subject][0] for row in self._rows if subject in row.streams and row.seq >= start)
        place = next(own, None)
        if place != 0:
            self._ledger.refute("V18.scope", "the beginning of the run is not there", None, 0, place)


def _proof(raw: bytes, claim: Claim) -> list[list[Any]]:
    """The rows of a proof that leads to the epoch's manifest. Raises `Malformed`."""
    document: Any = canon.parse(raw, PROOF_BYTES_MAX)
    if reason := _PROOF(document):
        raise Malformed(f"does not have the shape of a proof{reason}")
    if document["epoch"] != claim.number:
        raise Malformed("is the proof of another epoch")
    rows: list[list[Any]] = document["rows"]
    if any(before[1] >= after[1] for before, after in pairwise(rows)):
        raise Malformed("has streams that are not in ascending order")
    leaves = [(row[0], leaf_hash(canon.render(row[1:]))) for row in rows]
    hashes = [bytes.fromhex(item) for item in document["proof"]]
    if root_of_chosen(leaves, claim.streams, hashes).hex() != claim.manifest:
        raise Malformed("does not lead to the manifest that the log has")
    return rows


def _entry(rows: list[list[Any]], stream: str, streams: int) -> tuple[int, int, str] | None:
    """First place, last place and last digest of a stream; None when its neighbours show that it has none."""
    for _, name, first, last, digest in rows:
        if name == stream:
            if first > last:
                raise Malformed(f"has {stream} end before it begins")
            return first, last, digest
    below = [row for row in rows if row[1] < stream]
    above = [row for row in rows if row[1] > stream]
    after = below[-1][0] + 1 if below else 0
    if after != (above[0][0] if above else streams):
        raise Malformed(f"shows neither an entry of {stream} nor the two neighbours that leave no place for it")
    return None
