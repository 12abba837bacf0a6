"""What the order of a log is about, read off a record's text: the record itself is never built (docs/spec/verify.md).

One expression for each kind proves that the text is canonical and has the shapes of its kind; what it cannot prove is
left to the reader that builds the value. The order of a mapping's keys is the one thing that is compared here.
"""

import re
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

from countermark_verify import spelling
from countermark_verify.bodies_workflow import CLEAR, FLAT
from countermark_verify.canon import RECORD_BYTES_MAX
from countermark_verify.envelope import BODIES, MEMBERS
from countermark_verify.fields import NAME
from countermark_verify.shape import captured, maybe, member, proven, with_members

# What is read, as it is spelt: time, agent, run, who wrote it, lane, nonce, prev, seq; then name, place and digest of
# the streams of the agent, the payee (None where it has none) and the run; then the payee (None where none can be).
Glance = tuple[Any, ...]

_KIND = '"kind":"'
_NUMBER = "(0|[1-9][0-9]{0,14})"
_LINK = rf'\[{_NUMBER},"(sha256:[0-9a-f]{{64}})"\]'
_ID = "[0-9a-f]{32}"
_PAYEES = rf',"(p\.{_ID})":{_LINK}'
_STREAMS = rf'\{{"(a\.{_ID})":{_LINK}(?:%s{_PAYEES})?+,"(r\.{_ID})":{_LINK}\}}'
_STREAM_GROUPS = 9
# Keys of a mapping. An object that is a value is passed over; one that holds braces is not, and then looks unordered.
_KEYS = re.compile(r'[{,]"([A-Za-z0-9_.$-]{1,64})":(?:\{[^{}]*\})?+')
# The kinds that a day is full of: the members that are mappings, and whether a payee stands in `terms`.
_KINDS: dict[str, tuple[tuple[str, ...], bool]] = {
    "run.started": ((), False),
    "run.ended": ((), False),
    "request.signed": ((), False),
    "action.decided": (("args", "facts", "named"), True),
    "action.settled": (("output",), True),
    "escalation.raised": (("due", "ladders"), True),
    "escalation.climbed": ((), True),
    "escalation.expired": ((), True),
    "compute.executed": (("output",), False),
}
# Of these the members that may be absent bring a stream more.
_BARE = frozenset(("run.started", "run.ended"))
_ENVELOPE = ("by", "lane", "nonce", "prev", "seq")


class _Reader:
    """The expression of one kind. Names have no escapes: what is captured is what the value would be."""

    def __init__(self, kind: str) -> None:
        mappings, paid = _KINDS[kind]
        body = CLEAR.get(kind, BODIES[kind])
        changed = {name: captured(member(body, name), name) for name in mappings}
        if paid:
            terms = member(body, "terms")
            changed["terms"] = with_members(terms, {"payee": captured(maybe(NAME), "payee")})
        if kind == "compute.executed":
            changed["output"] = maybe(captured(FLAT, "output"))
        if kind == "action.decided":
            changed["escalation"] = captured(member(body, "escalation"), "escalation")
        changed |= {name: captured(NAME, name) for name in ("agent", "run")}
        members = MEMBERS | {name: captured(MEMBERS[name], name) for name in ("at", *_ENVELOPE)}
        spelled = {name: proven(check) for name, check in members.items()} | {
            "kind": spelling.const((kind,)), "streams": f"(?P<streams>{_STREAMS % ('' if paid else '(?!)')})",
            "body": proven(with_members(body, changed, bare=kind in _BARE)),
        }  # fmt: skip
        # Without an expression nothing is ever read here.
        pattern = re.compile(spelling.record(spelled, frozenset()) or r"(?!)", re.ASCII)
        self.fullmatch = pattern.fullmatch
        at = pattern.groupindex
        first = at.get("streams", 0) + 1
        self.places = (
            *(at.get(name, 0) for name in ("at", "agent", "run", *_ENVELOPE)),
            *range(first, first + _STREAM_GROUPS), at["payee"] if paid else first + 3,
        )  # fmt: skip
        self.mappings = tuple(at.get(name, 0) for name in mappings)
        self.by_agent = kind in ("run.started", "run.ended", "request.signed")
        self.escalation = at.get("escalation", 0)


@cache
def _reader(kind: str) -> _Reader | None:
    return _Reader(kind) if kind in _KINDS else None


@lru_cache(maxsize=4_096)
def _ascending(*keys: str) -> bool:
    return all(before < after for before, after in pairwise(keys))


def glance(raw: bytes) -> Glance | None:
    """What the record says, where its text is canonical, has the shapes of its kind and the right writer; or None."""
    if len(raw) > RECORD_BYTES_MAX:
        return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    start = text.rfind(_KIND) + 8
    reader = _reader(text[start : text.find('"', start)])
    if reader is None or (match := reader.fullmatch(text)) is None:
        return None
    for place in reader.mappings:
        span = match[place]
        if span and span != "{}" and not _ascending(*_KEYS.findall(span)):
            return None
    found: Glance = match.group(*reader.places)
    asked = reader.by_agent or (reader.escalation and match[reader.escalation] == "null")
    if found[3] != (f'"agent:{found[1][1:]}' if asked else '"gate"'):
        return None
    return found
