"""What commands share: the deployment, reading it beside its owner, and how things are printed."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from countermark.model.errors import AuthorityError, ConfigError, EncodingError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from countermark.audit import Unseal
    from countermark.authority import Person
    from countermark.journal import SqliteStore
    from countermark.wiring import config as configuration

    Config: TypeAlias = configuration.Config

FILE_BYTES_MAX = 1 << 20
DOCUMENT_BYTES_MAX = 65_536
HEX_MIN = 8
WIDTH_MIN = 40
QUOTE = "  > "
_F = TypeVar("_F", bound=Callable[..., Any])


def no_address(given: str) -> str:
    """What names a directory. Raises ``ConfigError`` for an address: as a path it would be a new directory here."""
    if "://" in given:
        hint = "Name a directory of this machine. A program asks a served gate with countermark.Client(url, token)."
        raise ConfigError(f"{given} is an address and no directory", hint=hint)
    return given


class Directory(click.Path):
    """A directory that a command makes, or writes in; an address is none."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(no_address(str(value)), param, ctx)


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
person_option = click.option("--person", metavar="NAME", required=True, help="Who signs, as the policy names them.")

mandate_option = click.option(
    "--mandate", metavar="DIGEST", help="Under which mandate, when the agent has several; its first hex digits will do."
)


def key_option(function: _F) -> _F:
    """``--key FILE``: a person's private key."""
    option = click.option("--key", "key", metavar="FILE", required=True, type=click.Path(path_type=Path),
                          help="The signer's private key (PEM, mode 0600).")  # fmt: skip
    return option(function)


@dataclass(frozen=True)
class Here:
    """The deployment that a command is about; looked for only when a command needs it."""

    given: str | None

    def config(self) -> Config:
        """The deployment's configuration. Raises ``ConfigError``."""
        from countermark.wiring import config

        return config.load_config(config.find_root(self.given))


pass_here = click.make_pass_decorator(Here)


@contextmanager
def reading(config: Config) -> Iterator[SqliteStore]:
    """The journal, read beside whoever owns the deployment: one committed state, whatever is written meanwhile."""
    from countermark.journal import SqliteStore

    store = SqliteStore(config.journal, readonly=True)
    try:
        with store.steady():
            yield store
    finally:
        store.close()


@contextmanager
def opening(config: Config, store: SqliteStore) -> Iterator[Unseal]:
    """Sealed values, opened with the deployment's vault key."""
    from countermark.audit import unsealer
    from countermark.journal import Vault
    from countermark.wiring import deployment

    vault = Vault(config.vault, deployment.read_key(config.keys / "vault.key"))
    try:
        yield unsealer(store, vault)
    finally:
        vault.close()


def read_file(path: str, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """A file given on the command line, ``-`` for standard input. Raises ``ConfigError``."""
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > bytes_max:
        raise ConfigError(f"{path} is longer than {bytes_max} bytes")
    return raw


def where_it_breaks(path: str) -> str:
    """Line and column at which a file ceases to be JSON; "" where the fault is another one, or it was read once."""
    if path == "-":
        return ""
    try:
        json.loads(read_file(path).decode("utf-8"))
    except json.JSONDecodeError as error:
        return f"Line {error.lineno}, column {error.colno}: {error.msg}."
    except UnicodeDecodeError as error:
        return f"Byte {error.start} is not UTF-8."
    return ""


def strict_json(path: str, bytes_max: int) -> Any:
    """A file of JSON, read strictly. Raises ``EncodingError``, which names the file and where it breaks."""
    from countermark.model.canon import read_json

    try:
        return read_json(read_file(path, bytes_max), bytes_max=bytes_max)
    except EncodingError as error:
        raise EncodingError(f"{path}: {error.message}", hint=error.hint or where_it_breaks(path)) from None


def read_object(path: str, names: Sequence[str], required: Sequence[str]) -> dict[str, Any]:
    """A JSON object with exactly known members, read strictly. Raises ``EncodingError`` or ``ConfigError``."""
    value = strict_json(path, DOCUMENT_BYTES_MAX)
    if type(value) is not dict:
        raise ConfigError(f"{path} does not hold a JSON object")
    unknown = value.keys() - set(names)
    if unknown:
        raise ConfigError(f"{path}: unknown member {min(unknown)!r}", hint=f"Known: {', '.join(names)}.")
    missing = set(required) - value.keys()
    if missing:
        raise ConfigError(f"{path}: {min(missing)!r} is missing")
    return value


def private_key(path: Path) -> Ed25519PrivateKey:
    """A person's key file. Raises ``ConfigError`` or ``SignatureError``."""
    from countermark.authority import load_private

    return load_private(path)


def signer_of(people: Mapping[str, Person], private: Ed25519PrivateKey) -> Person:
    """The person for whom this key signs now. Raises ``AuthorityError``."""
    from countermark.authority import public_of

    public = public_of(private)
    for person in people.values():
        if public in person.keys:
            return person
    raise AuthorityError("this key belongs to nobody in the policy", hint="See `countermark people list`.")


def emit(document: Mapping[str, Any] | Sequence[Any], text: str | Sequence[str], *, as_json: bool) -> None:
    """Print the one JSON document, or the words for people."""
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False, indent=1))
    else:
        click.echo(text if isinstance(text, str) else "\n".join(text))


def folded(text: str, *, err: bool = False) -> None:
    """Print a line; on a terminal, words that would not fit go to the next lines, under the first.

    A quoted line stays quoted, or its end would pass for ours.
    """
    if not (sys.stderr if err else sys.stdout).isatty() or len(text) <= (
        width := max(WIDTH_MIN, shutil.get_terminal_size().columns)
    ):
        click.echo(text, err=err)
        return
    indent = QUOTE if text.startswith(QUOTE) else " " * (len(text) - len(text.lstrip()) + 2)
    kept = textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False,
                         break_long_words=indent == QUOTE)  # fmt: skip
    click.echo("\n".join(kept), err=err)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Aligned columns; those in ``right`` hold numbers and end under each other."""
    if not rows:
        return []
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [cell.rjust(widths[n]) if n in right else cell.ljust(widths[n]) for n, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return lines


def mandate_named(known: Iterable[str], given: str) -> str:
    """The whole digest of a mandate of which somebody gave the first hex digits. Raises ``ConfigError``."""
    text = given.removeprefix("sha256:")
    if len(text) < HEX_MIN:
        raise ConfigError(f"give at least {HEX_MIN} hex digits of the mandate")
    found = [name for name in known if name.removeprefix("sha256:").startswith(text)]
    if len(found) != 1:
        raise ConfigError(f"{len(found)} mandates begin with {given}", hint="See `countermark mandate show`.")
    return found[0]


def short(digest: str | None) -> str:
    """A digest as people compare it: 12 hex digits."""
    return "none" if digest is None else digest.removeprefix("sha256:")[:12]


def good(text: str) -> str:
    return click.style(text, fg="green")


def bad(text: str) -> str:
    return click.style(text, fg="red")


def careful(text: str) -> str:
    return click.style(text, fg="yellow")
