"""``on``: what starts a run, and the inputs that go with it (``docs/spec/workflow-triggers.md``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from countermark.workflow import definition_build as build
from countermark.workflow import yaml_read as read
from countermark.workflow.errors import nearest
from countermark.workflow.yaml_nodes import Mapping as MappingNode
from countermark.workflow.yaml_nodes import Node, Scalar, Sequence
from countermark.workflow.yaml_read import Reading

KINDS: Final = ("workflow_dispatch", "manual", "schedule", "webhook", "chain", "chain_event", "workflow_call")
_CHAINS: Final = ("ethereum", "avalanche", "evm", "base", "polygon", "arbitrum", "optimism", "solana", "bitcoin")
_SHOWN: Final = tuple(kind for kind in KINDS if kind not in ("manual", "chain_event"))  # each has one name in the guide
TYPES: Final = {"boolean": "bool", "choice": "string", "environment": "string"}
INPUT: Final = ("type", "required", "default", "options", "choices", "description", "deprecationMessage")


def triggers_of(node: Node | None, reading: Reading) -> tuple[list[tuple[dict[str, Any], Node]], Node | None]:
    """The triggers, each with where it stands, and the node of the inputs declared with them.

    Without ``on`` a run is started by hand. Raises ``DefinitionError``.
    """
    found: list[tuple[dict[str, Any], Node]] = []
    if node is None:
        return [(dict(build.MANUAL), Scalar("", True, 1, 1))], None
    if not isinstance(node, MappingNode):
        for item in read.sequence(node, "`on`"):
            kind = _kind(item)
            found += _KIND[kind](Scalar("", True, item.line, item.column), reading)
        return found, None
    inputs: Node | None = None
    for key, value in node.items:
        kind = _kind(key)
        if kind in ("workflow_dispatch", "workflow_call", "manual"):
            keys = {} if _absent(value) else reading.keys(value, f"`on.{kind}`", ("inputs",))
            if "inputs" in keys and inputs is not None:
                keys["inputs"].fail("inputs are declared twice", "Declare them once, at the top: `inputs:`.")
            inputs = keys.get("inputs", inputs)
        found += _KIND[kind](value if not _absent(value) else Scalar("", True, key.line, key.column), reading)
    return found, inputs


def _absent(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.value() is None


def _kind(node: Node) -> str:
    if not isinstance(node, Scalar) or node.text not in KINDS:
        name = node.text if isinstance(node, Scalar) else ""
        hint = nearest(name, _SHOWN)
        if name in _CHAINS:
            hint = "Write `chain:` with the `source` that watches the contract; the deployment names it."
        elif name in ("push", "pull_request", "issues", "release"):
            hint = "There is no repository here. " + nearest("", _SHOWN)
        node.fail(f"nothing starts on `{name[:60]}`", hint)
    return node.text


def _manual(node: Node, reading: Reading) -> list[tuple[dict[str, Any], Node]]:
    return [(dict(build.MANUAL), node)]


def _nothing(node: Node, reading: Reading) -> list[tuple[dict[str, Any], Node]]:
    return []


def _schedule(node: Node, reading: Reading) -> list[tuple[dict[str, Any], Node]]:
    found: list[tuple[dict[str, Any], Node]] = []
    for item in _each(node):
        keys = reading.keys(item, "a schedule", ("cron", "timezone", "zone", "missed", "with"))
        if "cron" not in keys:
            item.fail("a schedule needs `cron`", "Such as: - cron: '0 9 * * MON-FRI'.")
        if "zone" in keys and "timezone" in keys:
            keys["zone"].fail("`zone` and `timezone` are the same")
        zone = keys.get("timezone", keys.get("zone"))
        trigger = {
            "kind": "schedule",
            "cron": " ".join(read.text(keys["cron"], "`cron`").upper().split()),
            "zone": read.optional(zone, read.text, "`timezone`", build.ZONE_DEFAULT),
            "missed": read.optional(keys.get("missed"), read.text, "`missed`", build.MISSED_DEFAULT),
            "with": reading.templates(keys.get("with"), "`with`", ()),
        }
        found.append((trigger, item))
    return found


def _source(kind: str) -> Callable[[Node, Reading], list[tuple[dict[str, Any], Node]]]:
    def triggers(node: Node, reading: Reading) -> list[tuple[dict[str, Any], Node]]:
        found: list[tuple[dict[str, Any], Node]] = []
        for item in _each(node):
            if isinstance(item, Scalar) and not item.text:
                item.fail(f"`{kind}` needs a `source`", f"Such as: {kind}: {{ source: stripe }}.")
            keys = reading.keys(item, f"`on.{kind}`", ("source", "if", "with"))
            if "source" not in keys:
                item.fail(f"`on.{kind}` needs a `source`", "The deployment names its sources in countermark.toml.")
            trigger = {
                "kind": kind,
                "source": read.text(keys["source"], "`source`"),
                "if": reading.texts.condition(keys["if"]) if "if" in keys else None,
                "with": reading.templates(keys.get("with"), "`with`", ()),
            }
            found.append((trigger, item))
        return found

    return triggers


def _each(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Sequence) else (node,)


_KIND: Final = {
    "workflow_dispatch": _manual, "manual": _manual, "workflow_call": _nothing, "schedule": _schedule,
    "webhook": _source("webhook"), "chain": _source("chain"), "chain_event": _source("chain"),
}  # fmt: skip


def inputs_of(node: Node | None, reading: Reading) -> dict[str, Any]:
    """Declared inputs. Raises ``DefinitionError``."""
    if node is None:
        return {}
    found = {}
    for name, value in read.mapping(node, "`inputs`").items():
        reading.place(("inputs", name), value)
        found[name] = _input(name, value, reading)
    return found


def _input(name: str, node: Node, reading: Reading) -> dict[str, Any]:
    what = f"the input `{name}`"
    keys: dict[str, Node]
    if isinstance(node, Scalar):
        keys = {} if _absent(node) else {"type": node}  # `amount: int`
    else:
        keys = reading.keys(node, what, INPUT)
    for key, value in keys.items():
        reading.place(("inputs", name, key if key != "options" else "choices"), value)
    if "options" in keys and "choices" in keys:
        keys["options"].fail("`options` and `choices` are the same")
    choices = keys.get("options", keys.get("choices"))
    type_ = read.optional(keys.get("type"), read.text, f"the type of {what}", "string")
    if type_ == "number":
        keys["type"].fail("`number` is no type here", "Write `int`: there is no number with a point.")
    return {
        "type": TYPES.get(type_, type_),
        "required": read.optional(keys.get("required"), read.flag, "`required`", False),
        "default": read.plain(keys["default"]) if "default" in keys else None,
        "choices": [] if choices is None else [read.plain(item) for item in read.sequence(choices, "`choices`")],
    }
