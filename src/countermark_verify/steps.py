"""The steps over the pack as a whole: V02, V03, V05, V07, V08 (docs/spec/verify.md).

Steps that follow the records one by one live beside their subject: V04 envelope, V06 order, V09 and V10 authority,
V11 life, V12 identity, V13 and V14 decide.
"""

import base64
import hashlib
from collections.abc import Generator, Iterator, Mapping

from countermark_verify import notes
from countermark_verify.certificate import split
from countermark_verify.container import CHECKPOINT, MANIFEST, tile_position
from countermark_verify.cosigned import times
from countermark_verify.crypto import signed
from countermark_verify.errors import Malformed
from countermark_verify.manifest import Manifest, read_manifest
from countermark_verify.notes import Checkpoint
from countermark_verify.report import Ledger
from countermark_verify.tree import Tree, entry_names
from countermark_verify.trust import Trust

Members = Mapping[str, memoryview]


def text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def v02_manifest(ledger: Ledger, members: Members, trust: Trust | None) -> Manifest | None:
    """Signature by a trusted log key; every other member named once, in byte order, with its digest."""
    ledger.ran("V02")
    try:
        manifest = read_manifest(bytes(members[MANIFEST]))
    except Malformed as error:
        ledger.refute("V02.form", f"the manifest {error}")
        return None
    if trust is None or not trust.log_keys:
        ledger.lack("V02.no_trust", "no trusted log key: whoever made this pack cannot be established")
    elif manifest.key_name != trust.origin or not any(
        signed(key.key, manifest.signature, manifest.signed) for key in trust.log_keys
    ):
        ledger.refute("V02.signature", "the manifest is not signed by a trusted log key")
    listed = [name for name, _ in manifest.subjects]
    present = sorted(name for name in members if name != MANIFEST)
    if listed != present:
        missing, extra = sorted(set(listed) - set(present))[:20], sorted(set(present) - set(listed))[:20]
        ledger.refute("V02.members", "the manifest names other members than the pack has", None, missing, extra)
    for name, expected in manifest.subjects:
        if name in members and name != MANIFEST:
            ledger.ran("V02", 1)
            actual = hashlib.sha256(members[name]).hexdigest()
            if actual != expected:
                ledger.refute("V02.digest", f"{name} is not what was signed", None, expected, actual)
    return manifest


def v03_head(ledger: Ledger, members: Members, manifest: Manifest | None, trust: Trust | None) -> Checkpoint | None:
    """The head's form, origin and signature; the predicate repeats it."""
    ledger.ran("V03", 1)
    try:
        head = notes.parse_checkpoint(bytes(members[CHECKPOINT]))
    except Malformed as error:
        ledger.refute("V03.form", f"the head {error}")
        return None
    v03_signed(ledger, head, trust)
    if manifest is not None:
        _predicate(ledger, manifest, head)
    return head


def v03_signed(ledger: Ledger, head: Checkpoint, trust: Trust | None) -> None:
    """The head is signed by a trusted key of the log that the auditor means."""
    ledger.ran("V03")
    if head.lines[0].name != head.origin:
        ledger.refute("V03.signature", "the first signature is not the log's", None, head.origin, head.lines[0].name)
    if trust is None or not trust.log_keys:
        ledger.lack("V03.no_trust", "no trusted log key: whose head this is cannot be established")
    else:
        if head.origin != trust.origin:
            message = "this pack is of another log than the trust file: its keys and heads say nothing about this one"
            ledger.refute("V03.origin", message, None, trust.origin, head.origin)
        verdicts = [notes.log_signed(head, key) for key in trust.log_keys]
        if True not in verdicts or False in verdicts:
            ledger.refute("V03.signature", "the head is not signed by a trusted log key")


def _predicate(ledger: Ledger, manifest: Manifest, head: Checkpoint) -> None:
    predicate = manifest.predicate
    origin = f"countermark/{predicate['deployment']}/{predicate['lane']}"
    for name, expected, actual in (
        ("origin", head.origin, predicate["origin"]),
        ("deployment and lane", head.origin, origin),
        ("key name", head.origin, manifest.key_name),
        ("size", head.size, predicate["size"]),
        ("root", text64(head.root), predicate["root"]),
    ):
        if expected != actual:
            ledger.refute("V03.mismatch", f"the manifest has another {name} than the head", None, expected, actual)


def bundles(members: Members, log_size: int) -> list[tuple[int, int, memoryview, str]]:
    """First seq, width, bytes and name of each entry bundle of a log of this size, up to one that is not there."""
    found, first = [], 0
    for name, width in entry_names(log_size):
        if name not in members:
            break
        found.append((first, width, members[name], name))
        first += width
    return found


def missing(ledger: Ledger, members: Members, log_size: int) -> None:
    """The first entry bundle that is not there."""
    first = 0
    for name, width in entry_names(log_size):
        if name not in members:
            ledger.refute("V05.size", f"{name} is missing", first)
            return
        first += width


def entries(members: Members, log_size: int, mark: bytes = b"") -> Iterator[bytes]:
    """The entries of a log of this size, as far as they can be read; only of bundles that have the mark somewhere."""
    nobody, found = Ledger(), bundles(members, log_size)
    if mark and not any(mark in bytes(data) for _, _, data, _ in found):
        return
    for first, width, data, name in found:
        if mark and mark not in (held := bytes(data)) and split(held, width) is not None:
            continue
        yield from (raw for _, raw, _, _ in bundle_entries(nobody, first, width, name, data))
        if nobody.steps["V05"].findings:
            return


def bundle_entries(
    ledger: Ledger, first: int, width: int, name: str, member: memoryview
) -> Generator[tuple[int, bytes, str, int], None, bool]:
    """Seq and bytes of the entries of one bundle; answers whether it has exactly these, or else refutes it."""
    data, size, position = bytes(member), len(member), 0
    for offset in range(width):
        start = position + 2
        position = size + 1 if start > size else start + (data[start - 2] << 8 | data[start - 1])
        if position > size:
            ledger.refute("V05.size", f"{name} ends inside an entry", first + offset)
            return False
        yield first + offset, data[start:position], "", 0
    if position != size:
        ledger.refute("V05.size", f"{name} has bytes after its last entry", first + width)
        return False
    return True


def present_size(members: Members) -> int:
    """How many entries the bundles' names promise: the size to read when there is no readable head."""
    positions = [position for name in members if (position := tile_position(name)) and position[0] == "entries"]
    return max((index * 256 + width for _, index, width in positions), default=0)


def v05_tree(ledger: Ledger, members: Members, head: Checkpoint | None, tree: Tree, size: int) -> None:
    """The leaves give the head's root; each hash tile is the recomputed one; nothing is missing or over."""
    ledger.ran("V05", tree.size)
    if tree.size != size:
        ledger.refute("V05.size", "fewer entries than the head says", tree.size, size, tree.size)
    if head is not None and tree.size == head.size and tree.root() != head.root:
        ledger.refute(
            "V05.root", "the records do not give the head's root", None, text64(head.root), text64(tree.root())
        )
    # A head may claim any size: what is not there is not counted.
    wanted = {name for name, _ in entry_names(tree.size)}
    for name, level, index, content in tree.tiles():
        wanted.add(name)
        ledger.ran("V05", 1)
        seq = index * 256 ** (level + 1)
        if name not in members:
            # A log that ends early has other partial tiles; V05.size has said so.
            if tree.size == size:
                ledger.refute("V05.tile", f"{name} is missing", seq)
        elif bytes(members[name]) != content:
            ledger.refute(
                "V05.tile", f"{name} is not the recomputed tile", seq + _differs(members[name], content, level)
            )
    if tree.size == size:
        for name in members:
            if tile_position(name) and name not in wanted:
                ledger.refute("V05.tile", f"{name} is no tile of this size")


def _differs(data: memoryview, content: bytes, level: int) -> int:
    """The first leaf under the first hash of a tile that differs, counted from the tile's own first leaf."""
    for at in range(0, len(content), 32):
        if data[at : at + 32] != content[at : at + 32]:
            return int(at // 32 * 256**level)
    return 0


def of_another_log(head: Checkpoint | None, trust: Trust | None) -> bool:
    """`V03.origin`: what the trust file retained cannot be compared with this log at all."""
    return head is not None and trust is not None and head.origin != trust.origin


def v07_trusted_heads(ledger: Ledger, tree: Tree, size: int, trust: Trust | None, cosigned: bool, reach: int) -> None:
    """The root at each trusted head's size equals it; retained leaf hashes equal; the size is the newest head's.

    `reach` is how far the auditor's witnesses saw the log by its own records, which V08 held against the tree.
    """
    if trust is None or not (trust.heads or cosigned or reach):
        ledger.lack("V07.no_trust", "no retained head and no witness quorum: a rewrite of this log would not show")
    if trust is None:
        return
    ledger.ran("V07", len(trust.heads) + len(trust.leaf_hashes))
    exact = _leaf_hashes(ledger, tree, trust)
    agreed = 0
    for head in trust.heads:
        if head.size > tree.size:
            continue
        if tree.roots[head.size] == head.root:
            agreed = head.size
            continue
        ledger.refute(
            "V07.rewritten",
            f"history was rewritten: it agrees with the head of size {agreed} and no longer with the one of size "
            f"{head.size} ({head.source}), so the first change is between seq {agreed} and {head.size - 1}",
            exact,
            {"agrees": agreed, "disagrees": head.size, "root": text64(head.root)},
            {"root": text64(tree.roots[head.size])},
        )
        break
    newest = max((reach, *(head.size for head in trust.heads)))
    if newest > tree.size:
        ledger.lack("V07.truncated", "shorter than a head that the auditor retained", None, newest, tree.size)
    elif trust.leaf_from + len(trust.leaf_hashes) > tree.size and trust.leaf_hashes:
        longest = trust.leaf_from + len(trust.leaf_hashes)
        ledger.lack("V07.truncated", "shorter than the retained leaf hashes", None, longest, tree.size)
    elif newest < size and newest and not cosigned:
        ledger.lack(
            "V07.later", f"{size - newest} records are later than the newest trusted head", newest, newest, size
        )


def _leaf_hashes(ledger: Ledger, tree: Tree, trust: Trust) -> int | None:
    """Compares retained leaf hashes; answers the first seq that differs."""
    first: int | None = None
    others = 0
    for seq, expected in enumerate(trust.leaf_hashes, trust.leaf_from):
        if seq >= tree.size:
            break
        if tree.leaf(seq) != expected:
            others += first is not None
            first = seq if first is None else first
    if first is not None:
        message = f"the record at seq {first} is not the one whose leaf hash was retained, nor are {others} after it"
        expected, actual = trust.leaf_hashes[first - trust.leaf_from], tree.leaf(first)
        ledger.refute("V07.rewritten", message, first, expected.hex(), actual.hex())
    return first


def v08_witnesses(ledger: Ledger, head: Checkpoint | None, trust: Trust | None) -> bool:
    """True when the trust file's quorum of independent operators cosigned this head."""
    if trust is None or not trust.witnesses or head is None:
        return False
    ledger.ran("V08")
    operators = set()
    for witness in trust.witnesses:
        try:
            found = times(head, witness.key)
        except Malformed as error:
            ledger.ran("V08", 1)
            ledger.refute("V08.cosignature", f"the head {error}")
            continue
        if not found or not found[0]:
            continue
        ledger.ran("V08", 1)
        if witness.operator.casefold() != trust.deployment.casefold():
            operators.add(witness.operator.casefold())
    if len(operators) >= trust.quorum:
        return True
    ledger.lack("V08.quorum", "fewer independent operators than the quorum", None, trust.quorum, len(operators))
    return False
