"""Reading YAML nodes by key: what is known, what is left aside with a note, what is refused with a hint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as Folder
from typing import Any, Final

from countermark.workflow.errors import Mistakes, Path, nearest
from countermark.workflow.yaml_nodes import Mapping as MappingNode
from countermark.workflow.yaml_nodes import Node, Scalar, Sequence, plain_value
from countermark.workflow.yaml_templates import Texts, is_secret

MINUTE_S = 60
MINUTES_MAX = 366 * 24 * 60
# Keys of GitHub's grammar that say nothing about what runs here. They change no run and no digest.
IGNORED: Final = ("runs-on", "permissions", "environment", "run-name", "description")
REFUSED: Final = {
    "container": "Code runs in a worker that has nothing; effects run in connectors.",
    "services": "Code runs in a worker that has nothing; effects run in connectors.",
    "defaults": "There is one language, Starlark, and no working directory.",
    "shell": "Code is Starlark: `run: |` and `def main(...):`.",
    "working-directory": "Code sees what it is given under `with`, and no files.",
    "secrets": "Secrets are no data of a run: the connector of a tool holds them.",
    "authority": "A mandate says who may do what: `countermark mandate grant`.",
    "payer": "The connector of a tool holds the account that pays.",
    "include": "Write the combinations as axes.",
    "exclude": "Write the combinations as axes, or give the job an `if`.",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What one text is read with: constants, where parts of the document stand, notes; and what lies around it."""

    texts: Texts = field(default_factory=Texts)
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    codes: dict[Path, Scalar] = field(default_factory=dict)
    files: dict[Path, tuple[str, str]] = field(default_factory=dict)  # code that stands in a file: its name and text
    folder: Folder | None = None
    workflows: Mapping[str, str] = field(default_factory=dict)

    def place(self, path: Path, node: Node) -> None:
        """Remember where a part of the document stands."""
        self.places[path] = (node.line, node.column)

    def note(self, node: Node, what: str) -> None:
        """Say something that is no mistake."""
        self.notes.append(f"line {node.line}: {what}")

    def within(self, env: Node | None) -> Reading:
        """The same with more constants."""
        if env is None:
            return self
        found = {}
        for name, value in mapping(env, "`env`").items():
            if not isinstance(value, Scalar):
                value.fail(f"`env.{name}` is no text, number, true, false or null")
            found[name] = self.texts.constant(value)
        return replace(self, texts=self.texts.within(found))

    def keys(self, node: Node, what: str, known: Collection[str]) -> dict[str, Node]:
        """The values of a mapping, by key; others are refused, those that mean nothing here are noted."""
        if not isinstance(node, MappingNode):
            node.fail(f"{what} is a mapping", f"Its keys: {', '.join(known)}.")
        found: dict[str, Node] = {}
        mistakes = Mistakes()
        for key, value in node.items:
            if key.text in known:
                found[key.text] = value
            elif key.text in IGNORED:
                self.note(key, f"`{key.text}` says nothing here and is left aside")
            else:
                hint = REFUSED.get(key.text) or nearest(key.text, known)
                with mistakes:
                    key.fail(f"unknown key `{key.text[:60]}` of {what}", hint)
        mistakes.tell()
        return found

    def templates(self, node: Node | None, what: str, path: Path) -> list[list[Any]]:
        """``[[NAME, TEMPLATE]...]`` of a mapping, sorted. What is nothing but a secret is left aside with a note."""
        if node is None:
            return []
        found = {}
        mistakes = Mistakes()
        for name, value in mapping(node, what).items():
            if is_secret(value):
                self.note(value, f"`{name}` is a secret, which the tool's connector holds: left aside")
                continue
            self.place((*path, name), value)
            with mistakes:
                found[name] = self.texts.template(value)
        mistakes.tell()
        return [[name, found[name]] for name in sorted(found)]


def among(node: Node, known: Collection[str]) -> dict[str, Node]:
    """What ``Reading.keys`` found to be known, where it said already what is not."""
    if not isinstance(node, MappingNode):
        return {}
    return {key.text: value for key, value in node.items if key.text in known}


def mapping(node: Node, what: str) -> dict[str, Node]:
    """The values of a mapping whose keys are anybody's names."""
    if isinstance(node, Scalar) and node.plain and node.value() is None:
        return {}
    if not isinstance(node, MappingNode):
        node.fail(f"{what} is a mapping of names")
    return {key.text: value for key, value in node.items}


def sequence(node: Node, what: str) -> tuple[Node, ...]:
    """The values of a list; one value alone is a list of one."""
    if isinstance(node, Sequence):
        return node.items
    if isinstance(node, MappingNode):
        node.fail(f"{what} is a list", "Begin each with `- `.")
    return (node,)


def text(node: Node, what: str) -> str:
    """A text without an expression in it."""
    if not isinstance(node, Scalar) or type(node.value()) is not str:
        node.fail(f"{what} is a text")
    if "${{" in node.text:
        node.fail(f"{what} is a text without expressions", offset=node.text.index("${{"))
    return node.text


def integer(node: Node, what: str) -> int:
    """A whole number."""
    found = node.value() if isinstance(node, Scalar) else None
    if type(found) is not int:
        hint = "An expression cannot stand here." if isinstance(node, Scalar) and "${{" in node.text else ""
        node.fail(f"{what} is a whole number", hint)
    return found


def flag(node: Node, what: str) -> bool:
    """true or false."""
    found = node.value() if isinstance(node, Scalar) else None
    if type(found) is not bool:
        yes = isinstance(node, Scalar) and node.text.lower() in ("yes", "no", "on", "off", "y", "n")
        node.fail(f"{what} is true or false", "In YAML 1.2 yes, no, on and off are texts." if yes else "")
    return found


def optional(node: Node | None, read: Callable[[Node, str], Any], what: str, default: Any = None) -> Any:
    """What is read, or the default when the key is not there."""
    return default if node is None else read(node, what)


def minutes(node: Node, what: str) -> int:
    """Minutes, as seconds."""
    found = integer(node, what)
    if not 1 <= found <= MINUTES_MAX:
        node.fail(f"{what} is 1 to {MINUTES_MAX:,}, which are 366 days")
    return found * MINUTE_S


def types(node: Node | None, what: str) -> dict[str, str]:
    """``{NAME: TYPE}``."""
    return {} if node is None else {name: text(value, f"{what}.{name}") for name, value in mapping(node, what).items()}


def plain(node: Node) -> Any:
    """A value without expressions."""
    _no_expression(node)
    return plain_value(node)


def _no_expression(node: Node) -> None:
    if isinstance(node, Scalar):
        if "${{" in node.text:
            node.fail("an expression cannot stand here", "It must be known before a run begins.")
    elif isinstance(node, Sequence):
        for item in node.items:
            _no_expression(item)
    else:
        for _, item in node.items:
            _no_expression(item)
