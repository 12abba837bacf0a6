"""The Cedar schema of a bundle: what its tools, facts and limits require, and whether its text says exactly that.

A schema that Cedar reads for itself can expand without bound (common types, actions in actions), so that Cedar never
sees the text of a pack: it gets what is derived here, and the text is only compared with it (docs/spec/policy.md).
"""

import re
from collections.abc import Mapping
from typing import Any

from countermark_verify.bundle import Bundle
from countermark_verify.errors import Malformed

SCHEMA_CHARS_MAX = 1024**2
_DEPTH_MAX = 8
GROUPS = ("change", "money", "read")
BUILT_IN: dict[str, Any] = {
    "instructed": ("Set", "String"),
    "local_day": "Long",
    "local_minute": "Long",
    "local_weekday": "Long",
    "payee_known": "Bool",
}
_ARGUMENTS = {"string": "String", "integer": "Long", "boolean": "Bool"}
_FACTS: dict[str, Any] = {
    "window": "Long",
    "distinct": "Long",
    "slot": {"known": (True, "Bool"), "age_s": (False, "Long")},
    "details": {"known": (True, "Bool"), "age_s": (False, "Long")},
    "grounded": {"known": (True, "Bool"), "equal": (True, "Bool")},
}
_TOKEN = re.compile(r'\s*+(?://[^\n]*+\s*+)*+(?:"([^"\\\n]*+)"|([A-Za-z_][A-Za-z0-9_]*+)|(::|[{}\[\]<>():;,=?])|\Z)')

# A type: a Cedar primitive's name, ("Set", type), or a record: name -> (required, type).
Type = Any
Record = dict[str, tuple[bool, Type]]
# Entities: name -> attributes. Actions: name -> (groups, context); a group itself has no context.
Schema = tuple[dict[str, Record], dict[str, tuple[frozenset[str], Record | None]]]


def required_schema(bundle: Bundle) -> Schema:
    """What the tools' `reads`, the facts and the limits require."""
    entities: dict[str, Record] = {"Agent": {"owner": (True, "String")}, "Payee": {}}
    if bundle.limits:
        entities["Limits"] = dict.fromkeys(bundle.limits, (True, "Long"))
    actions: dict[str, tuple[frozenset[str], Record | None]] = {group: (frozenset(), None) for group in GROUPS}
    for name, tool in bundle.tools.items():
        actions[name] = (frozenset([tool["class"]]), _context(tool, bundle.facts))
    return entities, actions


def _context(tool: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]) -> Record:
    arguments = {item["alias"]: item for item in tool["args"]}
    context: Record = {}
    groups: dict[str, Record] = {"args": {}, "facts": {}}
    for member in tool["reads"]:
        group, _, name = member.partition(".")
        if group == "args" and name in arguments:
            item = arguments[name]
            groups[group][name] = (item["required"], _ARGUMENTS[item["type"]])
        elif group == "facts" and (name in BUILT_IN or name in facts):
            groups[group][name] = (True, BUILT_IN[name] if name in BUILT_IN else _FACTS[facts[name]["kind"]])
        elif not name:
            context[group] = (True, "Long" if group == "amount" else "String")
    for group, members in groups.items():
        if members:
            # A group whose members may all be absent may be absent itself.
            context[group] = (any(required for required, _ in members.values()), members)
    return context


def as_cedar_json(schema: Schema) -> dict[str, Any]:
    """Cedar's JSON form of a schema."""
    entities, actions = schema
    return {
        "": {
            "entityTypes": {name: {"shape": _json_type(attributes)} for name, attributes in entities.items()},
            "actions": {
                name: {"memberOf": [{"id": group} for group in sorted(groups)]}
                | (
                    {}
                    if context is None
                    else {
                        "appliesTo": {
                            "principalTypes": ["Agent"],
                            "resourceTypes": ["Payee"],
                            "context": _json_type(context),
                        }
                    }
                )
                for name, (groups, context) in actions.items()
            },
        }
    }


def _json_type(kind: Type) -> dict[str, Any]:
    if isinstance(kind, dict):
        attributes = {name: _json_type(inner) | {"required": required} for name, (required, inner) in kind.items()}
        return {"type": "Record", "attributes": attributes}
    if isinstance(kind, tuple):
        return {"type": "Set", "element": _json_type(kind[1])}
    return {"type": "Boolean" if kind == "Bool" else kind}


def schema_problems(bundle: Bundle) -> list[str]:
    """Why the schema's text is not the one that the tools, facts and limits require."""
    try:
        entities, actions = read_schema(bundle.schema)
    except Malformed as error:
        return [f"the bundle {error}"]
    wanted_entities, wanted_actions = required_schema(bundle)
    found = []
    for what, have, want in (("entity", entities, wanted_entities), ("action", actions, wanted_actions)):
        for name in sorted(have.keys() | want.keys()):
            if have.get(name) != want.get(name):
                found.append(f"the schema's {what} {name!a} is not the one that the tools, facts and limits require")
    return found


def read_schema(text: str) -> Schema:
    """A schema of the shape that a compiler makes: entities, groups and actions, and nothing else.

    Raises `Malformed` for everything else: types, namespaces, annotations, escapes, entities in entities.
    """
    if len(text) > SCHEMA_CHARS_MAX:
        raise Malformed(f"has a schema longer than {SCHEMA_CHARS_MAX} characters")
    reader = _Reader(text)
    entities: dict[str, Record] = {}
    actions: dict[str, tuple[frozenset[str], Record | None]] = {}
    while (token := reader.next()) is not None:
        if token == ("word", "entity"):
            names, declared = reader.names(), reader.entity()
            _declare(entities, names, declared)
        elif token == ("word", "action"):
            names, action = reader.names(), reader.action()
            _declare(actions, names, action)
        else:
            raise Malformed("has a schema with something other than entities and actions")
    return entities, actions


def _declare(known: dict[str, Any], names: list[str], declared: Any) -> None:
    for name in names:
        if name in known:
            raise Malformed(f"has a schema that declares {name!a} twice")
        known[name] = declared


class _Reader:
    """Recursive descent over tokens; every method leaves the reader after what it read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def next(self) -> tuple[str, str] | None:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise Malformed("has a schema that cannot be read")
        self._at = match.end()
        if match.lastindex is None:
            return None
        return ("name", "word", "mark")[match.lastindex - 1], match.group(match.lastindex)

    def _peek(self, mark: str) -> bool:
        """Skips the mark or word if it comes next."""
        at = self._at
        token = self.next()
        if token is not None and token[0] != "name" and token[1] == mark:
            return True
        self._at = at
        return False

    def _expect(self, mark: str) -> None:
        if not self._peek(mark):
            raise Malformed(f"has a schema without the {mark!a} that belongs there")

    def _name(self) -> str:
        token = self.next()
        if token is None or token[0] == "mark":
            raise Malformed("has a schema without a name where one belongs")
        return token[1]

    def names(self) -> list[str]:
        names = [self._name()]
        while self._peek(","):
            names.append(self._name())
        return names

    def entity(self) -> Record:
        self._peek("=")
        if self._peek(";"):
            return {}
        attributes = self._record(1)
        self._expect(";")
        return attributes

    def action(self) -> tuple[frozenset[str], Record | None]:
        groups: frozenset[str] = frozenset()
        if self._peek("in"):
            groups = frozenset(self._listed(self._group))
            if not groups <= frozenset(GROUPS):
                raise Malformed("has a schema with an action in another action than the three groups")
        context = self._applies() if self._peek("appliesTo") else None
        self._expect(";")
        return groups, context

    def _listed(self, one: Any) -> list[str]:
        """`ONE` or `[ONE, ...]`."""
        if not self._peek("["):
            return [one()]
        found = [one()]
        while self._peek(","):
            found.append(one())
        self._expect("]")
        return found

    def _group(self) -> str:
        """`"NAME"` or `Action::"NAME"`."""
        name = self._name()
        if not self._peek("::"):
            return name
        if name != "Action":
            raise Malformed("has a schema with an action in something else")
        return self._name()

    def _applies(self) -> Record:
        self._expect("{")
        context: Record | None = None
        for place, (part, kind) in enumerate((("principal", "Agent"), ("resource", "Payee"), ("context", ""))):
            if place:
                self._expect(",")
            self._expect(part)
            self._expect(":")
            if kind:
                if self._listed(self._name) != [kind]:
                    raise Malformed(f"has a schema with an action whose {part} is not {kind}")
            else:
                context = self._record(1)
        self._peek(",")
        self._expect("}")
        return context or {}

    def _record(self, depth: int) -> Record:
        if depth > _DEPTH_MAX:
            raise Malformed("has a schema nested too deep")
        self._expect("{")
        members: Record = {}
        while not self._peek("}"):
            name = self._name()
            if name in members:
                raise Malformed(f"has a schema with {name!a} twice in one record")
            required = not self._peek("?")
            self._expect(":")
            members[name] = (required, self._type(depth + 1))
            if not self._peek(","):
                self._expect("}")
                break
        return members

    def _type(self, depth: int) -> Type:
        at = self._at
        if self._peek("{"):
            self._at = at
            return self._record(depth)
        name = self._name()
        if name == "Set" and self._peek("<"):
            if depth > _DEPTH_MAX:
                raise Malformed("has a schema nested too deep")
            element = self._type(depth + 1)
            self._expect(">")
            return ("Set", element)
        if name not in ("Bool", "Long", "String"):
            raise Malformed(f"has a schema with the unknown type {name[:40]!a}")
        return name
