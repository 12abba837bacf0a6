"""Write an extract: a pack of one case, of an agent's day or of a period (``docs/spec/pack.md``)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from countermark.audit.export import Disclose, Exported, Shown, for_people, gathered, head_of
from countermark.audit.pack import (
    Members,
    constant,
    entries,
    shown_of,
    write_members,
)
from countermark.audit.rebuild import Unseal
from countermark.audit.scope import Choice, Survey, Wanted, choose, manifest_of
from countermark.audit.zipped import MEMBER_BYTES_MAX, PackError
from countermark.journal import SqliteStore
from countermark.log import TILE_WIDTH, LogSigner, multiproof, tile_path
from countermark.model.canon import canon
from countermark.model.streams import GENERAL


def export_extract(
    path: Path,
    store: SqliteStore,
    signer: LogSigner,
    wanted: Wanted,
    *,
    deployment: str,
    lane: str = "l0",
    at: int | None = None,
    disclose: Disclose = "none",
    unseal: Unseal | None = None,
    before: Callable[[list[str], int, int], None] | None = None,
    page: bool = True,
) -> Exported:
    """Write what is ``wanted`` of a lane up to the signed head ``at`` (default: the newest).

    Arguments and errors are those of ``export_pack``, and ``PackError`` for a case that there is not.
    """
    headed = head_of(store, signer, at)
    size, head, root = headed.head.size, headed.head, headed.root
    choice, survey = choose(store, wanted, size)
    if survey.root(0, size) != head.root:
        raise PackError("the records are not those of the head", hint="The journal was altered: restore a backup.")
    raws = [raw for low, high in _ranges(choice.seqs) for _, raw in store.raw(low, high)]
    shown = Shown(disclose, unseal)
    bundles = gathered(store, raws, shown, size, before)
    fields = shown_of({"fields": shown.fields, "requests": shown.requests})
    origin = f"countermark/{deployment}/{lane}"
    predicate = {
        "v": 1, "deployment": deployment, "lane": lane, "origin": origin, "size": size, "root": root,
        "withheld": shown.withheld, "erased": shown.erased, "disclosed": len(fields["fields"]), "scope": choice.scope,
    }  # fmt: skip
    members = _members(store, choice, survey, size, raws)
    members |= {
        "README.txt": constant(_readme(origin, size, choice, len(raws)).encode("utf-8")),
        "disclosures.json": constant(canon(fields, bytes_max=MEMBER_BYTES_MAX)),
        "log/checkpoint": constant(headed.note),
    }
    if page:
        found = for_people(raws, bundles, shown, headed.note, origin=origin, root=root, size=size, scope=choice.scope)
        members |= {name: constant(raw) for name, raw in found.items()}
    members |= {f"policy/{name.removeprefix('sha256:')}.json": constant(raw) for name, raw in bundles.items()}
    write_members(path, members, predicate, headed.signer)
    return Exported(
        path, size, root, len(bundles), len(fields["fields"]), shown.withheld, shown.erased, headed.witnessed,
        store.size() - size, scope=choice.scope,
        records=len(raws), reaches=bool(choice.epochs) and choice.epochs[-1]["until"] >= choice.scope["to"],
    )  # fmt: skip


def _members(store: SqliteStore, choice: Choice, survey: Survey, size: int, raws: Sequence[bytes]) -> Members:
    """Records, their places, their proof, and what shows that none is missing."""
    index = canon({"v": 1, "ranges": _ranges(choice.seqs)}, bytes_max=MEMBER_BYTES_MAX)
    proof = b"".join(multiproof(choice.seqs, size, survey.root))
    found: Members = {"records/index.json": constant(index), "log/multiproof": constant(proof)}
    for start in range(0, len(raws), TILE_WIDTH):
        name = tile_path("entries", start // TILE_WIDTH, min(TILE_WIDTH, len(raws) - start))
        found[f"records/{name.removeprefix('tile/entries/')}"] = partial(_packed, raws, start)
    if choice.subject:
        for claim in choice.epochs:
            document = manifest_of(store, claim).proof(claim["epoch"], (choice.subject, GENERAL))
            found[f"epochs/{claim['epoch']}.json"] = constant(canon(document, bytes_max=MEMBER_BYTES_MAX))
    return found


def _packed(raws: Sequence[bytes], start: int) -> bytes:
    """A bundle of records, deflated (RFC 1951): records of one subject repeat each other, and shrink to a sixth."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return engine.compress(entries(raws, start)) + engine.flush()


def _ranges(seqs: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as ranges ``[from, to)`` that do not touch."""
    found: list[list[int]] = []
    for seq in seqs:
        if found and found[-1][1] == seq:
            found[-1][1] = seq + 1
        else:
            found.append([seq, seq + 1])
    return found


_ABOUT: Mapping[str, str] = {
    "agent": "what agent {agent} did on {day} ({zone})",
    "workflow": "which runs of {workflow} began or ended on {day} ({zone})",
    "case": "what happened in run {run}",
    "period": "everything that was recorded in a period",
}


_BEGINNINGS = """\
It does NOT hold what was paid: of the runs there is where each began and where it
ended, and not what their steps did. The pack of one run has that:
countermark export case.zip --case RUN

"""


def _held(scope: Mapping[str, Any]) -> str:
    return _BEGINNINGS if scope["kind"] == "workflow" else ""


def _readme(origin: str, size: int, choice: Choice, records: int) -> str:
    about = _ABOUT[choice.scope["kind"]].format_map({name: str(value) for name, value in choice.scope.items()})
    return f"""\
COUNTERMARK EVIDENCE PACK: AN EXTRACT

Log:      {origin}, of {size} records
About:    {about}
Records:  {records}, with all orders, mandates, policies and stops

This file holds a part of what a gate wrote down before and after each action of
the agents that it governs, and proofs that the part is complete: that between two
ends of epochs nothing of its subject was left out, or that there was nothing.

{_held(choice.scope)}HOW TO CHECK IT

You need the program countermark-verify, which shares no code with the gate, and a
trust file of your own. No network is used.

    countermark-verify PACK --trust FILE

The trust file says whom you believe: the log's key, the keys of people, and a head of
this log, of exactly this size, that you kept or that independent witnesses signed.
What an action's facts add up to, over records that are not in this file, can only be
checked over the whole log: whoever did that says so of the head (verified).

    exit 0  verified      everything that was checked holds, and fits what you trust
    exit 1  refuted       something does not fit; the report says what and where
    exit 2  incomplete    something cannot be established; the report says what
    exit 3  unreadable    this is no pack

WHAT IS INSIDE

    manifest.sigstore.json   a digest of every other member, signed by the log's key
    log/checkpoint           the signed head of the log
    log/multiproof           leads from the records to that head
    records/                 the records, and index.json: their places in the log
    epochs/                  where the subject's records end in each epoch, or that it has none
    policy/                  every policy that was ever in force
    disclosures.json         values that the records hold only as salted digests
    index.html               the same for people: open it in a browser
    population.csv           one line for each action
    README.txt               this text
"""
