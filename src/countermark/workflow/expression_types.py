"""What is known of an expression's value before there is data: unknown names and types that can never fit are errors.

Only what fails on all data is refused: a value that may be null, or of a type nobody declared, is left to the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from countermark.workflow import expression_parser as tree
from countermark.workflow.errors import DefinitionError, nearest
from countermark.workflow.expression_parser import Apply, Chain, Compare, Const, Index, Member, Name, Node, Not
from countermark.workflow.expressions import kind

_NULL: Final = frozenset(("null",))
TYPES: Final = ("string", "int", "bool", "list", "object")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a value may be.

    Attributes:
        types: words for its types, ``null`` among them; None when nothing is known.
        members: of an object whose members are all known, those.
        what: how an unknown member is called: ``no input`` makes "there is no input `x`".
        named: whether it may only stand before the name of a member.
        missing: what to do about a member that is not there; ``{}`` is its name.
    """

    types: frozenset[str] | None
    members: Mapping[str, Shape] | None = None
    what: str = ""
    named: bool = False
    missing: str = ""

    def words(self) -> str:
        """Its types for people, without null."""
        known = sorted((self.types or frozenset()) - {"null"}) or ["null"]
        return " or ".join(f"{'an' if word[0] in 'aeio' else 'a'} {word}" for word in known)


def of(*types: str) -> Shape:
    """A value of one of these types."""
    return Shape(frozenset(types))


def record(what: str, members: Mapping[str, Shape], *, named: bool = False, missing: str = "") -> Shape:
    """An object with exactly these members."""
    return Shape(frozenset(("object",)), members, what, named, missing)


def maybe(shape: Shape) -> Shape:
    """The same or null."""
    return shape if shape.types is None else replace(shape, types=shape.types | {"null"})


ANY: Final = Shape(None)
STRING, INT, BOOL = of("string"), of("int"), of("bool")
_OBJECT, _CAN_ORDER, _CAN_MEASURE = of("object"), of("string", "int"), of("string", "list", "object")

_ARGS: Final[dict[str, tuple[Shape, ...]]] = {
    "contains": (of("string", "list"), ANY), "startsWith": (STRING, STRING), "endsWith": (STRING, STRING),
    "format": (STRING,), "join": (of("list"), STRING), "toJSON": (ANY,), "fromJSON": (STRING,),
    "length": (_CAN_MEASURE,),
}  # fmt: skip
_RESULTS: Final = {
    "contains": BOOL, "startsWith": BOOL, "endsWith": BOOL, "format": STRING, "join": STRING, "toJSON": STRING,
    "fromJSON": ANY, "length": INT,
}  # fmt: skip
_FORMATTED = of("string", "int", "bool")


def fits(shape: Shape, wanted: Shape) -> bool:
    """Whether a value of this shape can be of a wanted type; one that is always null is, being absent."""
    if shape.types is None or wanted.types is None or shape.types == _NULL:
        return True
    return bool((shape.types & wanted.types) - {"null"})


def shape_of(text: str, scope: Mapping[str, Shape]) -> Shape:
    """What is known of an expression's value. Raises ``DefinitionError``: an unknown name, or types that never fit."""
    return _whole(tree.parse(text), scope)


def _whole(node: Node, scope: Mapping[str, Shape]) -> Shape:
    found = _shape(node, scope)
    if found.named:
        raise DefinitionError(f"`{tree.render(node)}` stands only before a name", hint=nearest("", found.members or ()))
    return found


def _shape(node: Node, scope: Mapping[str, Shape]) -> Shape:
    match node:
        case Const(value):
            return of(kind(value))
        case Name(name):
            if name in scope:
                return scope[name]
            raise DefinitionError(f"there is no `{name[:60]}` here", hint=_context_hint(name, scope))
        case Member(base, name):
            return _member(_shape(base, scope), name, tree.render(base))
        case Index(base, index):
            return _index(_whole(base, scope), _whole(index, scope), tree.render(base))
        case Not(operand):
            _whole(operand, scope)
            return BOOL
        case Compare(op, left, right):
            return _compare(op, _whole(left, scope), _whole(right, scope))
        case Chain(_, items):
            return _either(_whole(item, scope) for item in items)
        case Apply(function, args):
            return _apply(function, [_whole(arg, scope) for arg in args])


def _context_hint(name: str, scope: Mapping[str, Shape]) -> str:
    known = {
        "env": "`env` is known in YAML only, where it is declared.",
        "secrets": "Secrets are no data of a run: the connector of a tool holds them.",
        "github": "There is no repository here; what starts a run is in `event`.",
        "vars": "Declare an input with a default, or `env`.",
        "steps": "Steps are known within their job, after they ran; a job reads others through `needs.JOB.outputs`.",
        "needs": "Say `needs: [JOB]` in this job.",
        "jobs": "Say `needs.JOB.outputs.NAME`.",
        "matrix": "This job has no matrix.",
    }
    return known.get(name, nearest(name, scope))


def _member(base: Shape, name: str, text: str) -> Shape:
    if base.members is not None:
        if name in base.members:
            return base.members[name]
        near = nearest(name, base.members)
        hint = base.missing.replace("{}", name[:60]) if base.missing and not near.startswith("Did you mean") else near
        raise DefinitionError(f"there is no {base.what} `{name[:60]}`", hint=hint)
    if not fits(base, _OBJECT):
        raise DefinitionError(f"`{text[:200]}` is {base.words()} and has no members")
    return ANY


def _index(base: Shape, index: Shape, text: str) -> Shape:
    keys = of(
        *(["string"] if base.types is None or "object" in base.types else ()),
        *(["int"] if base.types is None or "list" in base.types else ()),
    )
    if keys.types == frozenset() or not fits(index, keys):
        raise DefinitionError(f"`{text[:200]}` is {base.words()}, which {index.words()} does not index")
    return ANY


def _compare(op: str, left: Shape, right: Shape) -> Shape:
    if op in ("==", "!="):
        if not (fits(left, right) or right.types == _NULL):
            raise DefinitionError(f"{left.words()} is never equal to {right.words()}", hint=_CONVERT)
    elif _NULL in (left.types, right.types) or not (fits(left, right) and fits(left, _CAN_ORDER)):
        raise DefinitionError(
            f"{left.words()} and {right.words()} have no order", hint="Two ints have, or two strings."
        )
    return BOOL


_CONVERT = "Nothing is converted: compare with a literal of that type."


def _either(shapes: Iterable[Shape]) -> Shape:
    found: frozenset[str] = frozenset()
    known = True
    for shape in shapes:
        known = known and shape.types is not None
        found |= shape.types or frozenset()
    return Shape(found) if known else ANY


def _apply(function: str, args: list[Shape]) -> Shape:
    if function in tree.STATUS_FUNCTIONS:
        return BOOL
    wanted = _ARGS[function]
    for number, arg in enumerate(args):
        want = wanted[number] if number < len(wanted) else _FORMATTED
        if not fits(arg, want):
            raise DefinitionError(f"argument {number + 1} of `{function}` is {arg.words()}, not {want.words()}")
    return _RESULTS[function]


def shape_of_template(template: Any, scope: Mapping[str, Shape]) -> Shape:
    """The same of a template, each expression in it looked at. Raises ``DefinitionError`` with ``path`` in it."""
    if type(template) is dict:
        if len(template) == 1 and "$" in template:
            return shape_of(template["$"], scope)
        for key, item in template.items():
            _inner(key, item, scope)
    elif type(template) is list:
        for number, item in enumerate(template):
            _inner(number, item, scope)
    return of(kind(template))


def _inner(key: str | int, item: Any, scope: Mapping[str, Shape]) -> None:
    try:
        shape_of_template(item, scope)
    except DefinitionError as error:
        raise error.within((key,)) from None
