"""Policy templates, shipped as package data: a directory of sources with placeholders for people's keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from countermark.model.errors import PolicyError
from countermark.model.words import nearest

_KEY = re.compile(r"\{\{KEY:([a-z0-9_.-]+)\}\}")


def _root() -> Traversable:
    return files("countermark.policy") / "templates"


def template_names() -> tuple[str, ...]:
    """The templates there are."""
    return tuple(sorted(entry.name for entry in _root().iterdir() if entry.is_dir() and not entry.name.startswith("_")))


def template_files(name: str) -> dict[str, str]:
    """The files of a template, path -> text, with ``{{KEY:PERSON}}`` where a public key belongs.

    Raises:
        PolicyError: there is no such template.
    """
    return dict(_read(name))


def folder_files(folder: Path) -> dict[str, str]:
    """The policy files below a folder, as ``template_files`` has them.

    Raises:
        PolicyError: there is none, or one cannot be read.
    """
    try:
        found = dict(_walk(folder, ""))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{folder} cannot be read: {error}") from None
    if not found:
        raise PolicyError(f"{folder} holds no policy file", hint="They end in .toml or .cedar.")
    return found


def template_people(files: Mapping[str, str]) -> tuple[str, ...]:
    """The ids of the people whose public keys the files need."""
    return tuple(sorted({person for text in files.values() for person in _KEY.findall(text)}))


def with_keys(files: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, str]:
    """The files with every ``{{KEY:PERSON}}`` replaced by ``keys[PERSON]`` (``ed25519:...``).

    Raises:
        PolicyError: a key is missing.
    """
    missing = [person for person in template_people(files) if person not in keys]
    if missing:
        raise PolicyError(f"the template needs a key for {', '.join(missing)}")
    return {path: _KEY.sub(lambda found: keys[found.group(1)], text) for path, text in files.items()}


def _read(name: str) -> list[tuple[str, str]]:
    if name not in template_names():
        raise PolicyError(f"there is no template {name!r}", hint=nearest(name, template_names()))
    return sorted(_walk(_root() / name, ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in folder.iterdir():
        path = prefix + entry.name
        if entry.is_dir():
            found += _walk(entry, path + "/")
        elif entry.name.endswith((".toml", ".cedar")):
            found.append((path, entry.read_text("utf-8")))
    return found
