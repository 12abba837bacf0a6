"""``facts.toml``: own fact definitions, and which tools have the fields they need."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from countermark.facts import KINDS, OUTPUT, PLAIN_FIELDS, USES, FactDef
from countermark.model.tool import ToolSpec
from countermark.model.words import nearest
from countermark.policy.bundle import BUILT_IN_FACTS
from countermark.policy.toml import Source, Table

FACTS_MAX = 128
_KEYS = ("kind", "of", "over", "group", "where", "use", "tool", "field")


def read_facts(source: Source, tools: Mapping[str, ToolSpec], taken: Collection[str]) -> dict[str, FactDef]:
    """The definitions by name, as far as they could be read. ``taken`` are the names of window limits."""
    root = source.root()
    root.only("facts")
    facts: dict[str, FactDef] = {}
    for name, table in root.tables("facts"):
        if name in BUILT_IN_FACTS or name in taken:
            what = "a built-in fact" if name in BUILT_IN_FACTS else "a window of limits.toml"
            table.error("", "duplicate", f"{name!r} is already the name of {what}")
            continue
        definition = _definition(name, table)
        problem = definition.problem() or _mixed(definition)
        if _fields_are_known(definition, table, tools) and problem:
            table.error("", "bad_fact", f"fact {name[:60]!r}: {problem}")
        facts[name] = definition
    if len(facts) > FACTS_MAX:
        root.error("facts", "too_many", f"more than {FACTS_MAX} facts")
    return facts


def _definition(name: str, table: Table) -> FactDef:
    table.only(*_KEYS)
    kind = table.choice("kind", KINDS)
    of = "" if kind in ("slot", "details") else table.text("of")
    where = []
    for field in sorted(table.table("where").value):
        values = table.table("where").value[field]
        where.append((field, tuple(values) if type(values) is list else (values,)))
    grounded = kind == "grounded"
    return FactDef(
        name,
        kind,  # type: ignore[arg-type]
        table.text("of", of) if kind in ("slot", "details") else of,
        _over_us(table, kind),
        table.texts("group", ()),
        tuple(where),
        table.choice("use", USES, "floor" if kind in ("grounded", "details") else None),  # type: ignore[arg-type]
        table.text("tool", None if grounded else ""),
        table.text("field", None if grounded else ""),
    )


def _over_us(table: Table, kind: str) -> int:
    optional = kind in ("slot", "grounded", "details") and "over" not in table
    return 0 if optional else table.duration_s("over") * 1_000_000


def _fields_are_known(definition: FactDef, table: Table, tools: Mapping[str, ToolSpec]) -> bool:
    known = {*PLAIN_FIELDS, *(f"args.{arg.alias}" for tool in tools.values() for arg in tool.args if not arg.sensitive)}
    used = [("group", field) for field in definition.group]
    used += [("where", field) for field, _ in definition.where if not field.startswith(OUTPUT)]
    if definition.kind in ("distinct", "grounded"):
        used.append(("of", definition.of))
    unknown = [(key, field) for key, field in used if field not in known]
    for key, field in unknown:
        table.error(key, "unknown_field", f"fact {definition.name!r}: no tool has the field {field[:60]!r}",
                    nearest(field, known))  # fmt: skip
    for field, _ in definition.where:
        if field.startswith(OUTPUT) and field not in (outputs := _outputs(definition, tools)):
            what = f"fact {definition.name!r}: none of its tools has the output {field.removeprefix(OUTPUT)[:60]!r}"
            table.error("where", "unknown_field", what, nearest(field, outputs))
            unknown.append(("where", field))
    return not unknown and (definition.kind != "grounded" or _ground_is_known(definition, table, tools))


def _outputs(definition: FactDef, tools: Mapping[str, ToolSpec]) -> set[str]:
    """What the tools that the definition is about put out; those of all tools when it names none."""
    named = {str(value) for field, values in definition.where if field == "tool" for value in values} or set(tools)
    return {OUTPUT + name for tool in tools.values() if tool.name in named for name, _ in tool.outputs}


def _mixed(definition: FactDef) -> str:
    if definition.kind == "window" and definition.of == "amount" and not _one_currency(definition):
        return 'sum mixes currencies; add "currency" to group'
    return ""


def _one_currency(definition: FactDef) -> bool:
    return "currency" in definition.group or any(
        field == "currency" and len(values) == 1 for field, values in definition.where
    )


def _ground_is_known(definition: FactDef, table: Table, tools: Mapping[str, ToolSpec]) -> bool:
    tool = tools.get(definition.tool)
    if tool is None:
        table.error("tool", "unknown_tool", f"fact {definition.name!r}: there is no tool {definition.tool[:60]!r}",
                    nearest(definition.tool, tools))  # fmt: skip
        return False
    outputs = [name for name, _ in tool.outputs]
    if definition.field not in outputs:
        what = f"fact {definition.name!r}: {tool.name} has no output {definition.field[:60]!r}"
        table.error("field", "unknown_field", what, nearest(definition.field, outputs))
        return False
    return True


def applies(definition: FactDef, tool: ToolSpec) -> bool:
    """Whether a tool's actions have every field that the fact is grouped or weighed by."""
    fields = set(definition.group)
    if definition.kind in ("distinct", "grounded"):
        fields.add(definition.of)
    elif definition.kind == "window" and definition.of == "amount":
        fields.add("amount")
    return fields <= fields_of(tool)


def fields_of(tool: ToolSpec) -> set[str]:
    """The fields that an action of this tool can have (``docs/spec/facts.md``)."""
    fields = {"agent", "run", "mandate", "tool"}
    if tool.one("amount") is not None:
        fields |= {"amount", "currency"}
    if tool.one("payee") is not None:
        fields.add("payee")
    return fields | {f"args.{arg.alias}" for arg in tool.args if not arg.sensitive}
