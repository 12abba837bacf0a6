"""The daybook finds exactly the actions that a reader of the whole journal finds, and never answers for the records."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from audit_day import the_day
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bench"))

from long_journal import LongJournal

from countermark.audit import Daybook, Filter, daybook_find, explain, find_page, near, row_of, told_by
from countermark.audit.daybook_find import STATUSES
from countermark.audit.daybook_rows import Batch, words_of
from countermark.audit.told import Told
from countermark.connectors import NoopConnector
from countermark.journal import SqliteStore
from countermark.model.clock import US, FakeClock
from countermark.model.errors import ArgumentError, StoreError
from countermark.model.records import Record
from countermark.wiring.connectors import drafts
from countermark.wiring.init import init_deployment

START_US = 1_793_700_000 * US
DAY_US = 86_400 * US
REFERENCES = ("INV-1", "inv 2", "A/77-b", "77", "x_INV-1", "ÄÖ-9", "1")


@cache
def empty() -> Path:
    """A deployment that nothing was asked of yet."""
    folder = Path(tempfile.mkdtemp(prefix="countermark-daybook-")) / "deployment"
    connectors = {"stripe": NoopConnector(drafts()["stripe"])}
    init_deployment(folder, "vendor-payments", "acme", clock=FakeClock(START_US), connectors=connectors)
    return folder


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[LongJournal]:
    shutil.copytree(empty(), tmp_path / "d")
    made = LongJournal(tmp_path / "d")
    yield made
    made.store.close()


def followed(book: Daybook, store: SqliteStore, step: int = 1_024) -> Daybook:
    while book.follow(store, step):
        pass
    return book


def of(journal: LongJournal, step: int = 1_024) -> Daybook:
    journal.commit()
    return followed(Daybook(journal.config.root / "cache" / "daybook.db"), journal.store, step)


class Naive:
    """Every action by reading every record."""

    def __init__(self, store: SqliteStore) -> None:
        actions: dict[str, list[Record]] = {}
        for record in store.records():
            if record.kind.startswith(("action.", "escalation.", "review.")) and "id" in record.body:
                actions.setdefault(record.body["id"], []).append(record)
        self.told = [Told(store, tuple(rows), None) for rows in actions.values()]

    def fits(self, told: Told, wanted: Filter) -> bool:
        body, terms = told.body, told.body["terms"]
        texts = [str(body["args"][n]) for n in ("invoice", "batch", "charge") if type(body["args"].get(n)) is str]
        texts += [record.body["ref"] for record in told.of("action.settled") if record.body["ref"]]
        day = datetime.fromtimestamp(told.first.at // US, UTC).strftime("%Y-%m-%d")
        text = wanted.text.strip().casefold()
        return (
            wanted.agent in ("", body["agent"])
            and wanted.tool in ("", body["tool"])
            and wanted.payee in ("", terms["payee"])
            and wanted.status in ("", told.status)
            and wanted.disposition in ("", body["disposition"])
            and wanted.day in ("", day)
            and (wanted.others or terms["amount"] is not None)
            and (not text or text == body["id"] or any(begins(one.casefold(), text) for one in texts))
        )

    def find(self, wanted: Filter) -> list[str]:
        found = [told for told in self.told if self.fits(told, wanted)]
        return [told.body["id"] for told in sorted(found, key=lambda told: -told.first.seq)]


def begins(reference: str, text: str) -> bool:
    """Whether the text stands in the reference, and not in the middle of a word of digits and a-z."""
    plain = "0123456789abcdefghijklmnopqrstuvwxyz"
    return any(
        reference.startswith(text, at) and (at == 0 or (reference[at] in plain and reference[at - 1] not in plain))
        for at in range(len(reference))
    )


def all_pages(book: Daybook, wanted: Filter, limit: int) -> list[str]:
    found: list[str] = []
    before = None
    for _ in range(10_000):
        page = find_page(book, wanted, before, limit)
        found += [entry.id for entry in page.entries]
        if page.older is None:
            return found
        before = page.older
    raise AssertionError("the pages do not end")


_step = st.tuples(
    st.sampled_from(["allow", "flag", "deny", "ask", "late", "settle", "settle", "answer", "expire"]),
    st.sampled_from(["treasury", "other"]), st.sampled_from([0, 1]), st.sampled_from(REFERENCES),
    st.sampled_from(["confirmed", "failed", "unknown"]), st.sampled_from(["approve", "refuse"]),
    st.sampled_from([None, 1_000]), st.sampled_from([1, DAY_US // 3]),
)  # fmt: skip
_filter = st.builds(
    Filter, agent=st.sampled_from(["", "treasury", "other", "nobody"]),
    tool=st.sampled_from(["", "stripe.transfers.create", "none"]),
    payee=st.sampled_from(["", "acme-paper", "borealis-hosting"]), status=st.sampled_from(["", *STATUSES]),
    disposition=st.sampled_from(["", "allow", "flag", "escalate", "deny"]),
    day=st.sampled_from(["", "2026-11-03", "2026-11-04", "2020-01-01"]),
    text=st.sampled_from(["", "inv", "INV-1", "77", "b", "äö", "tr_", "v-1", "zz", "1"]), others=st.booleans(),
)  # fmt: skip


def play(journal: LongJournal, steps: list[Any]) -> None:
    """What the steps say, as far as it can happen in a lane."""
    opened: list[Record] = []
    asked: list[tuple[Record, str]] = []
    for what, agent, payee, reference, outcome, verdict, amount, after in steps:
        if what in ("allow", "flag", "deny"):
            made = journal.decided(what, agent=agent, payee=payee, invoice=reference, amount=amount, after_us=after)
            opened += [made] if what != "deny" else []
        elif what in ("ask", "late"):
            made = journal.decided("escalate", agent=agent, payee=payee, invoice=reference, after_us=after)
            asked.append((made, journal.raised(made)))
        elif what == "settle" and opened:
            intent = opened.pop(0)
            journal.settled(intent, outcome, after_us=after)
            opened += [intent] if outcome == "unknown" else []
        elif what == "answer" and asked:
            decision, escalation = asked.pop()
            journal.answered(decision, escalation, verdict, after)
            if verdict == "approve":
                again = journal.decided("allow" if outcome != "failed" else "deny", again=decision,
                                        escalation=escalation)  # fmt: skip
                opened += [again] if outcome != "failed" else []
        elif what == "expire" and asked:
            journal.expired(*asked.pop(0))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(_step, max_size=40), wanted=st.lists(_filter, min_size=6, max_size=12),
       step=st.integers(1, 9), limit=st.integers(1, 5), few=st.sampled_from([0, 2, 2_000]),
       walk=st.sampled_from([3, 10_000]))  # fmt: skip
def test_it_finds_what_a_reader_of_everything_finds(
    steps: list[Any], wanted: list[Filter], step: int, limit: int, few: int, walk: int
) -> None:
    """Whatever happened, in whatever steps it was followed, and whether few or many fit: the same actions, in order."""
    kept = daybook_find.FEW, daybook_find.WALK_MAX
    daybook_find.FEW, daybook_find.WALK_MAX = few, walk
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(empty(), Path(folder) / "d")
        journal = LongJournal(Path(folder) / "d")
        try:
            play(journal, steps)
            book = of(journal, step)
            naive = Naive(journal.store)
            for one in wanted:
                assert all_pages(book, one, limit) == naive.find(one), one
            for told in naive.told:
                assert book.about(told.body["id"]) == [record.seq for record in told.records]
                assert book.newest("id:" + told.body["id"]) == told.records[-1].seq
            book.close()
        finally:
            journal.store.close()
            daybook_find.FEW, daybook_find.WALK_MAX = kept


def test_pages_stay_as_they_are_while_records_arrive(journal: LongJournal) -> None:
    """The next page begins where the last ended, however much was decided or settled in between."""
    intents = [journal.decided("allow", after_us=US) for _ in range(30)]
    book = of(journal)
    first = find_page(book, Filter(), None, 10)
    for intent in intents:
        journal.settled(intent)
        journal.decided("allow")
    journal.commit()
    followed(book, journal.store)
    second = find_page(book, Filter(), first.older, 10)
    third = find_page(book, Filter(), second.older, 10)
    shown = [entry.id for page in (first, second, third) for entry in page.entries]
    assert shown == [intent.body["id"] for intent in reversed(intents)]
    assert third.older is None or find_page(book, Filter(), third.older, 10).entries == ()


def test_a_row_says_what_the_records_say(journal: LongJournal) -> None:
    """Amount, payee, reference and status of a line come from the action's own records."""
    intent = journal.decided("flag", invoice="INV-7", amount=123_456)
    journal.settled(intent, ref="tr_abc")
    book = of(journal)
    (entry,) = find_page(book, Filter()).entries
    row = row_of(journal.store, entry, near(journal.store, book, {}))
    assert row["amount"] == "1,234.56 EUR"
    assert row["payee"] == "Acme Paper GmbH (acme-paper)"
    assert (row["reference"], row["status"], row["ref"]) == ("invoice INV-7", "confirmed", "tr_abc")


def test_a_row_of_what_somebody_looked_at_keeps_its_outcome(journal: LongJournal) -> None:
    """A review that came after the outcome is not what became of the action."""
    intent = journal.decided("flag", invoice="INV-1")
    journal.settled(intent)
    review = {"person": "controller", "note": "ok"}
    journal.add("review.cleared", {"id": intent.body["id"], "decided": intent.seq, "review": review})
    book = of(journal)
    (entry,) = find_page(book, Filter()).entries
    assert row_of(journal.store, entry, near(journal.store, book, {}))["status"] == "confirmed"
    book.close()


def test_two_processes_follow_the_same_journal(journal: LongJournal) -> None:
    """Who comes second writes nothing twice, forgets nothing, and goes on from where the other one is."""
    for number in range(6):
        journal.settled(journal.decided(invoice=f"INV-{number}"))
    one = of(journal)
    journal.settled(journal.decided(invoice="INV-7"))
    journal.commit()
    other = Daybook(journal.config.root / "cache" / "daybook.db")
    batches: list[int] = []
    write = other._write

    def late(batch: Batch, start: int, size: int, digest: str) -> None:
        batches.append(start)
        followed(one, journal.store)
        write(batch, start, size, digest)

    other._write = late  # type: ignore[method-assign]
    followed(other, journal.store)
    assert batches
    assert other.size == one.size == journal.store.size()
    assert len(all_pages(other, Filter(), 50)) == 7
    one.close()
    other.close()


def test_an_altered_daybook_cannot_show_another_payment(journal: LongJournal) -> None:
    """A place that leads to another action's records is refused, not shown."""
    for _ in range(2):
        journal.settled(journal.decided("allow"))
    book = of(journal)
    one, other = find_page(book, Filter()).entries
    ways = near(journal.store, book, {})
    for column in ("last", "newest"):
        wrong = type(one)(**{name: getattr(one, name) for name in ("first", "last", "newest", "id")} | {
            column: getattr(other, column)})  # fmt: skip
        with pytest.raises(StoreError) as caught:
            row_of(journal.store, wrong, ways)
        assert caught.value.code == "bad_daybook"
    book._db.execute("update about set seq=?", (other.newest,))
    with pytest.raises(StoreError):
        told_by(journal.store, book, one.id, ways)


def test_another_journal_under_the_same_name_is_read_anew(journal: LongJournal, tmp_path: Path) -> None:
    """A restored journal with other records at the same places is not taken for the one that was followed."""
    for _ in range(5):
        journal.decided("allow")
    of(journal).close()
    shutil.copytree(empty(), tmp_path / "other")
    other = LongJournal(tmp_path / "other", seed=2)
    for _ in range(5):
        other.decided("deny")
    other.commit()
    book = followed(Daybook(journal.config.root / "cache" / "daybook.db"), other.store)
    try:
        assert {entry.id for entry in find_page(book, Filter(status="denied")).entries} == {
            told.body["id"] for told in Naive(other.store).told
        }
        assert find_page(book, Filter(status="pending")).entries == ()
    finally:
        other.store.close()


@pytest.mark.parametrize("damage", ["garbage", "foreign", "older"])
def test_a_damaged_daybook_is_made_anew(journal: LongJournal, damage: str) -> None:
    """Whatever stands in its place, it is a cache: it is deleted and filled again."""
    journal.decided("allow")
    path = journal.config.root / "cache" / "daybook.db"
    path.parent.mkdir()
    if damage == "garbage":
        path.write_bytes(b"no database at all" * 1_000)
    else:
        db = sqlite3.connect(path)
        db.execute("create table t (x)")
        db.execute(f"pragma user_version={0 if damage == 'older' else 7}")
        db.commit()
        db.close()
    assert len(find_page(of(journal), Filter()).entries) == 1
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("how", ["pages", "truncated", "emptied", "tables"])
def test_a_daybook_that_is_damaged_while_it_is_open_is_made_anew(journal: LongJournal, how: str) -> None:
    """Whoever looks is told to look again; the next look finds everything, without a restart."""
    for number in range(300):
        journal.decided("allow", invoice=f"INV-{number}")
    book = of(journal)
    path = journal.config.root / "cache" / "daybook.db"
    book._db.execute("pragma wal_checkpoint(truncate)")
    book._db.execute("pragma cache_size=1")
    book._db.execute("pragma shrink_memory")
    if how == "tables":
        with closing(sqlite3.connect(path)) as db:
            db.execute("drop table follows")
    else:
        raw = path.read_bytes()
        path.write_bytes({"pages": raw[:4_096] + b"\x0d" * (len(raw) - 4_096), "truncated": raw[:4_096]}.get(how, b""))
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
    journal.decided("deny", invoice="INV-new")
    journal.commit()
    found: list[str] = []
    for _ in range(6):
        with suppress(StoreError):
            followed(book, journal.store)
            found = all_pages(book, Filter(), 100)
    assert len(found) == 301


def test_a_full_disk_keeps_the_daybook(journal: LongJournal) -> None:
    """What it holds stays readable; with room again it goes on from there, and nothing else notices."""
    journal.decided("allow", invoice="INV-0")
    book = of(journal)
    (pages,) = book._db.execute("pragma page_count").fetchone()
    book._db.execute(f"pragma max_page_count={pages}")
    for number in range(1, 400):
        journal.decided("allow", invoice=f"INV-{number}")
    journal.commit()
    for _ in range(3):
        with pytest.raises(StoreError) as caught:
            followed(book, journal.store)
        assert caught.value.retryable
    assert len(find_page(book, Filter()).entries) == 1
    inode = (journal.config.root / "cache" / "daybook.db").stat().st_ino
    book._db.execute("pragma max_page_count=100000")
    followed(book, journal.store)
    assert len(all_pages(book, Filter(), 100)) == 400
    assert (journal.config.root / "cache" / "daybook.db").stat().st_ino == inode


def test_a_disk_that_is_full_when_it_is_made_anew(journal: LongJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so in one kind of error, and tries again with the next look."""
    journal.decided("allow")
    book = of(journal)
    monkeypatch.setattr(Daybook, "_connected", lambda self: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(StoreError):
        book.forget()
    for _ in range(2):
        with pytest.raises(StoreError):
            book.follow(journal.store)
    monkeypatch.undo()
    assert len(find_page(followed(book, journal.store), Filter()).entries) == 1


CHILD = """
import sys
from pathlib import Path
from countermark.audit import Daybook
from countermark.journal import SqliteStore
store, book = SqliteStore(Path(sys.argv[1]), readonly=True), Daybook(Path(sys.argv[2]))
while book.follow(store, 7):
    pass
"""


@pytest.mark.parametrize("count", [1, 2, 5])
def test_killed_while_it_follows_it_goes_on(journal: LongJournal, count: int) -> None:
    """SIGKILL in the middle of its transaction: the next process finds every action once."""
    for number in range(40):
        journal.decided("allow", invoice=f"INV-{number}")
    journal.commit()
    path = journal.config.root / "cache" / "daybook.db"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(journal.config.journal), str(path)], check=False, timeout=60,
        env={**os.environ, "COUNTERMARK_CRASH": f"daybook.in_transaction:{count}"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert len(all_pages(of(journal), Filter(), 7)) == 40


def test_sensitive_references_are_not_in_it() -> None:
    """Only what stands in clear in a record can be searched for: a sealed value is nowhere in the file."""
    day = the_day()
    store = day.store
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "daybook.db"
        book = followed(Daybook(path), store)
        try:
            assert find_page(book, Filter(text="roof")).entries == ()
            assert len(find_page(book, Filter(text="INV-1")).entries) >= 1
            book.close()
            assert b"town hall" not in path.read_bytes()
        finally:
            store.close()


def test_it_tells_the_same_story_as_explain() -> None:
    """For every way in which an action of a whole day ended, the records that it finds make explain's own story."""
    day = the_day()
    store = day.store
    with tempfile.TemporaryDirectory() as folder:
        book = followed(Daybook(Path(folder) / "daybook.db"), store)
        ways = near(store, book, {})
        try:
            for action in day.ids.values():
                told = told_by(store, book, action, ways)
                assert told is not None
                document = explain(store, action).document
                assert told.status == document["status"]
                assert [r.seq for r in told.records] == [row["seq"] for row in document["records"]]
        finally:
            book.close()
            store.close()


def test_what_cannot_be_meant_is_refused(journal: LongJournal) -> None:
    """A status, a day or a text that nothing can have is an error of the asker, not an empty page."""
    book = of(journal)
    for wrong in (Filter(status="paid"), Filter(day="3 Nov"), Filter(day="2026-02-30"), Filter(text="x" * 200),
                  Filter(disposition="maybe")):  # fmt: skip
        with pytest.raises(ArgumentError):
            find_page(book, wrong)


def test_words_begin_where_people_begin_to_type() -> None:
    """A reference is found by its beginning and by the beginning of each part of it."""
    assert words_of("INV-4711/b") == ["inv-4711/b", "4711/b", "b"]
    assert words_of("-7") == ["-7", "7"]
    assert words_of("ÄÖ-9") == ["äö-9", "9"]
    assert max(map(len, words_of("x" * 5_000))) == 128
