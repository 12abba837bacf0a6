"""The deployment's folder of definitions: ``*.yaml``, ``*.yml``, and canonical documents as ``*.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from countermark.model.canon import read_json
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.workflow import ANYTHING, Definition, Known, Reach, reach_of, read_definition

FILES_MAX = 256
FILE_BYTES_MAX = 256_000
_ENDINGS = (".yaml", ".yml", ".json")


@dataclass(slots=True)
class Found:
    """What a folder holds: definitions by name, and why a file is none, by the file's name."""

    definitions: dict[str, Definition] = field(default_factory=dict)
    reaches: dict[str, Reach] = field(default_factory=dict)  # by digest: how far their calls reach
    faults: dict[str, CountermarkError] = field(default_factory=dict)


def read_folder(folder: Path, known: Known = ANYTHING) -> Found:
    """Compile every file; one may call another by its name, whatever the order. A folder that is not there is empty."""
    found = Found()
    if not folder.is_dir():
        return found
    files = sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS and path.is_file())
    for path in files[FILES_MAX:]:
        found.faults[path.name] = ArgumentError(f"a folder has at most {FILES_MAX} definitions")
    left = files[:FILES_MAX]
    while left:
        later = []
        for path in left:
            try:
                _add(found, path, read_file(path, folder, found, known))
                found.faults.pop(path.name, None)
            except CountermarkError as error:
                found.faults[path.name] = error
                later.append(path)
        if len(later) == len(left):
            break
        left = later
    return found


def _add(found: Found, path: Path, definition: Definition) -> None:
    if definition.name in found.definitions:
        raise ArgumentError(f"another file of the folder has the name {definition.name} already")
    found.reaches[definition.digest] = reach_of(definition, lambda called: found.reaches.get(called, Reach(0, 0)))
    found.definitions[definition.name] = definition


def read_file(path: Path, folder: Path, found: Found, known: Known = ANYTHING) -> Definition:
    """One definition. Raises ``CountermarkError``."""
    try:
        raw = path.read_bytes()
        if len(raw) > FILE_BYTES_MAX:
            raise ArgumentError(f"a definition's file has at most {FILE_BYTES_MAX} bytes")
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path.name} cannot be read as text: {error}") from None
    if path.suffix == ".json":
        return read_definition(read_json(raw, bytes_max=FILE_BYTES_MAX), known=known)
    from countermark.workflow import read_yaml

    digests = {name: one.digest for name, one in found.definitions.items()}
    return read_yaml(text, folder=folder, workflows=digests, known=known).definition
