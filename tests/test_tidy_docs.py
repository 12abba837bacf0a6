"""What the documents say and what the source and the packaging hold are compared here, so that neither drifts."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_tidy import ROOT, SRC, dotted, files, tree_of

from countermark.model.digest import DOMAINS
from countermark.model.records import KINDS


def _docs(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def _strings(*shapes: str) -> set[str]:
    pattern = re.compile("|".join(shapes))
    constants = (node for path in files(SRC) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant))
    return {node.value for node in constants if type(node.value) is str and pattern.fullmatch(node.value)}


def test_every_digest_domain_is_documented() -> None:
    """The domains of model/digest.py, every other one written in the source, and those of the specification agree."""
    shape = r"countermark/v1/[a-z-]+"
    documented = set(re.findall(shape, _docs("spec/digests.md")))
    assert set(DOMAINS) == documented
    assert _strings(shape) <= documented


def test_every_record_kind_is_documented() -> None:
    """Every kind of record has its body described in the specification."""
    assert [kind for kind in KINDS if f"`{kind}`" not in _docs("spec/record.md")] == []


def error_codes(tree: ast.Module) -> set[str]:
    """Codes that errors carry: the class attribute ``code`` of an error class, ``code=`` where one is raised."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
            values = [
                item.value for item in node.body if isinstance(item, ast.Assign) and dotted(item.targets[0]) == "code"
            ]
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("Error"):
            values = [item.value for item in node.keywords if item.arg == "code"]
        else:
            continue
        found |= {value.value for value in values if isinstance(value, ast.Constant) and type(value.value) is str}
    return found


def test_every_error_code_is_documented() -> None:
    """Every code that an error of the product carries has a row, and no row of the first table is about nothing."""
    sources = [path for path in files(SRC / "countermark") if "twins" not in path.parts]  # those speak for a provider
    written = set().union(*(error_codes(tree_of(path)) for path in sources))
    page = _docs("reference/errors.md")
    assert sorted(code for code in written if not re.search(rf"^\|.*`{code}`.*\|$", page, re.MULTILINE)) == []
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", page.split("\n## ")[1], re.MULTILINE))
    constants = _strings("[a-z_]+")  # a code may be put together: "bad_" + what it is about
    assert sorted(code for code in documented if not {code, code.removeprefix("bad_")} & constants) == []


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Names of all commands that do something: ``policy check``."""
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    if command.invoke_without_command and path:
        yield " ".join(path)
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None and not found.hidden:
            yield from _commands(found, (*path, name))


def test_every_command_is_documented() -> None:
    """The commands of the program and the rows of the operating page are the same."""
    documented = set()
    for cell in re.findall(r"^\| (`countermark [^|]+)\|", _docs("operating.md"), re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        words = re.match(r"countermark((?: [a-z]+)+)", first)[1].split()  # "policy check", then "test" for its sisters
        documented |= {" ".join(words), *(" ".join([*words[:-1], other]) for other in others)}
    assert set(_commands(importlib.import_module("countermark.cli").main)) == documented


def test_every_crash_point_is_documented() -> None:
    """The crash points in the code are those of the page on an action's life, in its steps and in its table."""
    calls = (node for path in files(SRC) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))
    points = {ast.literal_eval(node.args[0]) for node in calls if dotted(node.func) == "crash_point"}
    page = _docs("life-of-an-action.md")
    assert set(re.findall(r"\(crash\s+point:\s+`([a-z_.]+)`\)", page)) == points
    first_cells = re.findall(r"^\| (`[^|]+)\|", page, re.MULTILINE)
    assert set(re.findall(r"`([a-z_.]+)`", " ".join(first_cells))) == points


def test_error_codes_are_found_where_they_are_written() -> None:
    """A code given by a class and one given when raising are both seen."""
    sample = "class XError(Exception):\n    code = 'x'\ndef f():\n    raise XError('m', code='y')"
    assert error_codes(ast.parse(sample)) == {"x", "y"}


# In pieces, so that this file does not hold what it looks for.
_PATHS = ("/" + "root/", "/" + "home/[a-z]", "/" + "Users/", "/" + "work/")
_HOSTS = ("pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs", "proxy" + r"\.golang", "index" + "-url")
_FOREIGN = re.compile(rf"(?<![\w.])(?:{'|'.join(_PATHS)})|{'|'.join(_HOSTS)}|bash_" + "jobs", re.IGNORECASE)


def foreign(text: str) -> list[str]:
    """Paths of one machine and hosts of package registries in a text."""
    return _FOREIGN.findall(text)


def test_no_machine_path_or_registry_host_is_in_the_project() -> None:
    """No file that is not ignored names a directory of the machine it was written on, or a package registry."""
    ignored = [".git", *(line.strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split())]
    found = {}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not any(fnmatch(name, pattern) for pattern in ignored)]
        for path in (Path(folder) / name for name in names if not any(fnmatch(name, pattern) for pattern in ignored)):
            if path.is_file():
                found[path.relative_to(ROOT).as_posix()] = foreign(path.read_bytes().decode("utf-8", "replace"))
    assert "pyproject.toml" in found
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_machine_paths_are_found() -> None:
    """The patterns see a home directory and a registry's host, and let a plain path be."""
    assert len(foreign("see /ho" + "me/ann/x and https://py" + "pi.org/simple")) == 2
    assert foreign("docs/spec/record.md") == []


def _pins(lines: list[str]) -> dict[str, str]:
    found = {}
    for requirement in map(Requirement, lines):
        if requirement.name == "countermark":  # the project's own extras: what they bring is listed by itself
            continue
        exact = [part.version for part in requirement.specifier if part.operator == "=="]
        assert len(exact) == 1, f"{requirement} is not pinned exactly"
        found[canonicalize_name(requirement.name)] = exact[0]
    return found


DEV_EXTRAS = ("server", "mcp", "otel")  # those that the development environment installs


def test_no_dependency_floats() -> None:
    """Whatever the project pulls in, directly or through others, has one exact version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = [line for name in DEV_EXTRAS for line in project["project"]["optional-dependencies"][name]]
    direct = _pins([*project["project"]["dependencies"], *extras, *project["dependency-groups"]["dev"]])
    pins = {**_pins(project["tool"]["uv"]["constraint-dependencies"]), **direct}
    todo, seen = list(direct), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        assert distribution.version == pins.get(name), f"{name} {distribution.version} is not pinned"
        for requirement in map(Requirement, distribution.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(canonicalize_name(requirement.name))


def test_every_link_in_the_documents_leads_somewhere() -> None:
    """A relative link of a Markdown page names a file that exists."""
    pages = [*ROOT.glob("*.md"), *files(ROOT / "docs", "*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))]
    assert [
        f"{page.name}: {link}" for page, link in links if "://" not in link and not (page.parent / link).exists()
    ] == []


def test_the_product_never_calls_itself_compliant() -> None:
    """The product supports evidence for a duty; whether somebody complies is for others to judge."""
    pages = [*ROOT.glob("*.md"), *files(ROOT / "docs", "*.md"), *files(SRC)]
    word = re.compile("compl" + r"iant\b", re.IGNORECASE)
    assert [page.name for page in pages if word.search(page.read_text("utf-8"))] == []


def test_the_readme_gives_the_commands_that_ci_runs() -> None:
    """The README's test command is the one that CI runs, and it names the demo."""
    readme, ci = (ROOT / "README.md").read_text("utf-8"), (ROOT / ".ci" / "run").read_text("utf-8")
    assert "uv run countermark demo" in readme
    assert "uv run pytest\n" in readme
    assert "tests uv run pytest &&" in ci


def test_every_page_of_the_documents_is_linked_from_the_readme() -> None:
    """Somebody who begins with README.md finds each page that stands in docs/ and docs/spec/."""
    readme = (ROOT / "README.md").read_text("utf-8")
    linked = set(re.findall(r"\]\((docs/[^)#]+)", readme))
    pages = [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "spec").glob("*.md"),
        *(ROOT / "docs" / "reference").glob("*.md"),
    ]
    assert sorted({page.relative_to(ROOT).as_posix() for page in pages} - linked) == []


def test_links_between_pages_lead_somewhere() -> None:
    """Every link of a page to another one names a file that exists, and where it names a heading, that one has it."""
    wrong = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target, _, heading in re.findall(r"\]\(([^)#:]*)(#([^)]*))?\)", page.read_text("utf-8")):
            file = (page.parent / target).resolve() if target else page
            if not file.exists() or (heading and heading not in _anchors(file.read_text("utf-8"))):
                wrong.append(f"{page.relative_to(ROOT)}: {target}#{heading}")
    assert wrong == []


def _anchors(text: str) -> set[str]:
    """Names of headings as they are linked to: lower case, without signs, with dashes for spaces."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}
