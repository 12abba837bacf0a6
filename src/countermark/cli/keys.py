"""``keys``: make a key pair for a person or an agent; hand the log over to its next key."""

from __future__ import annotations

from pathlib import Path

import click

from countermark.cli.base import Here, as_json_option, emit, folded, good, key_option, pass_here, reading
from countermark.cli.two import enrolled_here, one_way, out_option, read_half, second_option, write_half
from countermark.model.errors import ConfigError

by_option = click.option("--by", metavar="NAME", required=True, help="Who signs.")


@click.group()
def keys() -> None:
    """Make keys; hand the log over to another."""


@keys.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@as_json_option
def new(file: Path, as_json: bool) -> None:
    """Write a new private key to FILE (mode 0600) and print its public half, for the policy."""
    from countermark.authority import generate, public_of, save_private

    private = generate()
    save_private(file, private)
    public = str(public_of(private))
    emit({"file": str(file), "public": public}, public, as_json=as_json)


@keys.command()
@as_json_option
@pass_here
def prepare(here: Here, as_json: bool) -> None:
    """Make the next key of the log, beside the present one. Start the gate again, then rotate."""
    from countermark.wiring import prepare_next

    signer = prepare_next(here.config())
    following = signer.following.vkey if signer.following is not None else ""
    emit(
        {"old": signer.vkey, "new": following},
        [f"{good('Prepared')} keys/log.next.pem. Give its verifier key to witnesses and auditors:", f"  {following}",
         "Start the gate again, then: countermark keys rotate"],
        as_json=as_json,
    )  # fmt: skip


@keys.command()
@click.option("--days", metavar="N", type=click.IntRange(0, 400), default=30, show_default=True,
              help="How long both keys sign every head.")  # fmt: skip
@click.option("--reason", metavar="TEXT", help="Why; it stands in the record.")
@by_option
@key_option
@out_option
@second_option
@as_json_option
@pass_here
def rotate(
    here: Here, days: int, reason: str | None, by: str, key: Path, out: Path | None, second: Path | None, as_json: bool
) -> None:
    """Hand the log over to its next key: two people with the role principal or operator sign.

    The first signs with --out FILE, the other with --second FILE. Both log keys sign the same document.
    """
    from countermark.audit import when
    from countermark.authority import load_private, parse_rotation, prove_rotation, public_of, sign_rotation
    from countermark.model.clock import US, SystemClock
    from countermark.wiring import open_deployment

    one_way(out, second)
    config = here.config()
    private = enrolled_here(config, by, key)
    signed: list[dict[str, str]] = []
    old, new = (load_private(config.keys / name) for name in ("log.pem", "log.next.pem"))
    if second is not None:
        documents, signed = read_half(second, "rotate", by)
        document = parse_rotation(documents[0]).document()
    elif reason is None:
        raise click.UsageError("say why: --reason TEXT")
    else:
        document = {
            "v": 1, "deployment": config.deployment, "lane": config.lane, "old": str(public_of(old)),
            "new": str(public_of(new)), "until": SystemClock().now_us() + days * 86_400 * US, "reason": reason,
        }  # fmt: skip
    folded(f"The log's key becomes {document['new']}; both sign until {when(document['until'])}.", err=as_json)
    signed = [*signed, sign_rotation(document, by, private)]
    if out is not None:
        write_half(out, "rotate", [document], signed)
        said = f"{good('Signed')} into {out}. Now somebody else: --second {out}"
        emit({"file": str(out), "rotation": document}, said, as_json=as_json)
        return
    body = {"rotation": document, "proofs": prove_rotation(document, old, new), "signed": signed}
    with open_deployment(config.root, recover=False) as handle:
        answer = handle.call("key.rotate", body)
    emit(answer, [f"{good('Rotated')}, record #{answer['seq']}. The log's key is now:", f"  {answer['new']}"],
         as_json=as_json)  # fmt: skip


@keys.command(name="retire")
@as_json_option
@pass_here
def retire_(here: Here, as_json: bool) -> None:
    """Delete the old key of the log, once the overlap is over; its verifier key stays in keys/log.retired."""
    from countermark.audit import present_state
    from countermark.model.clock import SystemClock
    from countermark.wiring import retire

    config = here.config()
    with reading(config) as store:
        state = present_state(store)
    # By the records' time too: a clock that is ahead only now would delete a key that must sign tomorrow.
    if state.rotation is not None and min(SystemClock().now_us(), state.at) < state.rotation[2]:
        raise ConfigError(
            "the overlap is not over: the old key still signs",
            code="overlap",
            hint="It is over when something was recorded after its end: start the gate, then retire.",
        )
    old = retire(config, state.log_key)
    emit({"retired": old}, f"{good('Retired')} {old}. Start the gate again.", as_json=as_json)


@keys.command()
@as_json_option
@pass_here
def show(here: Here, as_json: bool) -> None:
    """The log's verifier keys: the present one, the next one, and those of before."""
    from countermark.wiring import log_signer, second_signer

    signer, second = log_signer(here.config()), second_signer(here.config())
    following = None if signer.following is None else signer.following.vkey
    lines = [f"log      {signer.vkey}"]
    lines += [] if following is None else [f"next     {following}"]
    lines += [] if second is None else [f"ml-dsa   {second.vkey}"]
    lines += [f"retired  {one}" for one in signer.retired]
    emit(
        {"log": signer.vkey, "next": following, "ml_dsa": None if second is None else second.vkey,
         "retired": list(signer.retired)}, lines, as_json=as_json,
    )  # fmt: skip
