"""Four eyes on the command line: the first person signs into a file, the second signs the same and hands it in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from countermark.cli.base import folded, key_option, person_option
from countermark.model.errors import AuthorityError, ConfigError

if TYPE_CHECKING:
    from countermark.cli.base import Config

FILE_BYTES_MAX = 4 << 20

_F = TypeVar("_F", bound=Callable[..., Any])

out_option = click.option("--out", metavar="FILE", type=click.Path(path_type=Path),
                          help="Where the first signature goes, for the second person.")  # fmt: skip
second_option = click.option("--second", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False),
                             help="What the first person signed: sign the same and hand it in.")  # fmt: skip


def two_people(function: _F) -> _F:
    """The options of an order that two people sign, one after the other."""
    yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
    for option in (yes, second_option, out_option, key_option, person_option):
        function = option(function)
    return function


def write_half(path: Path, op: str, documents: list[dict[str, Any]], signed: list[dict[str, str]]) -> None:
    """Keep what one person signed. Raises ``ConfigError`` for a file that exists."""
    text = json.dumps({"v": 1, "op": op, "documents": documents, "signed": signed}, ensure_ascii=False, indent=1)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise ConfigError(f"{path} exists", hint="Name another file.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def read_half(path: Path, op: str, person: str) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The documents and the first person's signature of each. Raises ``ConfigError`` or ``EncodingError``."""
    from countermark.model.canon import read_json

    with path.open("rb") as file:
        raw = file.read(FILE_BYTES_MAX + 1)
    value = read_json(raw, bytes_max=FILE_BYTES_MAX)
    if type(value) is not dict or value.keys() != {"v", "op", "documents", "signed"} or value["v"] != 1:
        raise ConfigError(f"{path} is not what a first person signed")
    documents: Any = value["documents"]
    signed: Any = value["signed"]
    if value["op"] != op or type(documents) is not list or type(signed) is not list or len(documents) != len(signed):
        raise ConfigError(f"{path} is not what a first person signed for this")
    if not documents or any(type(item) is not dict for item in (*documents, *signed)):
        raise ConfigError(f"{path} is not what a first person signed for this")
    if any(row.get("person") == person for row in signed):
        raise ConfigError(f"{person} has signed this already", hint="Somebody else is the second person.")
    return documents, signed


def agree(lines: list[str], person: str, *, yes: bool, as_json: bool) -> None:
    """Show what is signed, and ask whether to; standard output is left to a document. Raises ``click.Abort``."""
    for line in lines:
        folded(line, err=as_json)
    if not yes:
        click.confirm(f"Sign exactly this, as {person}", abort=True, err=as_json)


def one_way(out: Path | None, second: Path | None) -> None:
    """Exactly one of the two ways. Raises ``click.UsageError``."""
    if (out is None) == (second is None):
        raise click.UsageError("sign first with --out FILE, or second with --second FILE")


def enrolled_here(config: Config, person: str, key: Path) -> Any:
    """The person's private key, if its public half is in force for them. Raises ``AuthorityError``."""
    from countermark.audit import present_state
    from countermark.authority import public_of
    from countermark.cli.base import private_key, reading

    private = private_key(key)
    with reading(config) as store:
        people = present_state(store).people
    if person not in people:
        raise AuthorityError(f"there is no person {person} here", hint=f"There are: {', '.join(sorted(people))}.")
    public = public_of(private)
    owner = next((one.id for one in people.values() if public in one.keys), None)
    if owner != person:
        whose = "it signs for nobody here" if owner is None else f"it is a key of {owner}"
        raise AuthorityError(
            f"{key} is no key of {person}: {whose}", hint="`countermark people list` shows whose key is whose."
        )
    return private
