"""Reading a policy directory: which files belong to a bundle, and how large they may be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from countermark.model.errors import PolicyError
from countermark.policy.findings import Finding

Sources: TypeAlias = tuple[tuple[str, str], ...]

FILES_MAX = 128
FILE_BYTES_MAX = 128 * 1024
TOTAL_BYTES_MAX = 384 * 1024  # own policies stand twice in a bundle of at most 1 MiB

LIMITS, TOOLS, FACTS, LADDERS = "limits.toml", "tools.toml", "facts.toml", "ladders.toml"
REQUIRED = (LIMITS, TOOLS)
OPTIONAL = (FACTS, LADDERS)
FOLDERS = (("policies", "*.cedar"), ("policies", "witnesses.policy"), ("tests", "*.toml"))


def load_sources(directory: str | Path) -> Sources:
    """``((path, text), ...)`` of the files of a policy directory, sorted by path.

    Raises:
        PolicyError: the directory is empty, unreadable, too large, or has no ``limits.toml`` or ``tools.toml``.
    """
    root = Path(directory)
    if not root.is_dir():
        raise PolicyError(f"there is no policy directory {directory}", hint="`countermark init` makes one.")
    paths = [root / name for name in (*REQUIRED, *OPTIONAL)]
    try:
        found = [path for path in paths if path.exists()]
        for folder, pattern in FOLDERS:
            found += sorted((root / folder).glob(pattern))
        if len(found) > FILES_MAX:
            raise PolicyError(f"a policy has more than {FILES_MAX} files")
        sources = tuple(sorted((path.relative_to(root).as_posix(), _read(path)) for path in found))
    except OSError as error:
        raise PolicyError(f"the policy cannot be read: {error.strerror}") from None
    return checked(sources)


def load_rule(directory: str | Path) -> Sources:
    """The files of a rule on its own, under the paths that they would have in a policy: ``facts.toml``, ``*.cedar``.

    Raises ``PolicyError``.
    """
    root = Path(directory)
    try:
        paths = sorted([*root.glob(FACTS), *root.glob("*.cedar"), *root.glob("policies/*.cedar")])
        if not any(path.suffix == ".cedar" for path in paths) or len(paths) > FILES_MAX:
            raise PolicyError(f"{root.name} holds no rule, or too many", hint="Give it *.cedar, and facts.toml.")
        return tuple((FACTS if path.name == FACTS else f"policies/{path.name}", _read(path)) for path in paths)
    except OSError as error:
        raise PolicyError(f"the rule cannot be read: {error.strerror}") from None


def laid_over(base: Iterable[tuple[str, str]], rule: Iterable[tuple[str, str]]) -> Sources:
    """A policy's files with a rule's: facts are added, unless they stand there already, other files added or replaced.

    Raises ``PolicyError``.
    """
    files = dict(base)
    for path, text in rule:
        known = files.get(path, "")
        if path != FACTS or not known:
            files[path] = text
        elif text.strip() not in known:
            files[path] = f"{known}\n{text}"
    return checked(files.items())


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        raw = stream.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        raise _bad(path.name, f"longer than {FILE_BYTES_MAX} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad(path.name, "not UTF-8") from None


def checked(sources: Iterable[tuple[str, str]]) -> Sources:
    """The sources in their one order. Raises ``PolicyError`` when they are too many, too large or incomplete."""
    ordered = tuple(sorted((path, text) for path, text in sources))
    names = [path for path, _ in ordered]
    if len(ordered) > FILES_MAX or len(set(names)) != len(names):
        raise PolicyError(f"a policy has more than {FILES_MAX} files, or one of them twice")
    sizes = [len(text.encode("utf-8", "surrogatepass")) for _, text in ordered]
    if max(sizes, default=0) > FILE_BYTES_MAX or sum(sizes) > TOTAL_BYTES_MAX:
        raise PolicyError(f"a policy is longer than {TOTAL_BYTES_MAX} bytes, or one file than {FILE_BYTES_MAX}")
    for name in REQUIRED:
        if name not in names:
            raise _bad(name, "there is no such file", "Start from a template: `countermark init --template`.")
    return ordered


def _bad(name: str, what: str, hint: str = "") -> PolicyError:
    """What is wrong with a whole file."""
    return PolicyError(f"{name}: {what}", findings=(Finding(name, 0, PolicyError.code, what, hint),), hint=hint)
