"""``people``: who signs for whom; enrol a key, remove one, say who answers while somebody is away."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import (
    Here,
    as_json_option,
    careful,
    emit,
    folded,
    good,
    key_option,
    pass_here,
    reading,
    table,
)
from countermark.cli.two import enrolled_here, out_option, read_half, second_option, write_half
from countermark.model.errors import ArgumentError, ConfigError

if TYPE_CHECKING:
    from countermark.cli.base import Config

FINGERPRINT_MIN = 8
ENROL_DAYS = 1
by_option = click.option("--by", metavar="NAME", help="Who signs, if not PERSON.")


@click.group()
def people() -> None:
    """Who signs for whom: keys of people, and who answers while somebody is away."""


@people.command(name="list")
@as_json_option
@pass_here
def list_(here: Here, as_json: bool) -> None:
    """Everybody: roles, keys in force, when each was enrolled and by whom, absences."""
    from countermark.audit import present_state

    with reading(here.config()) as store:
        state = present_state(store)
    found = state.roll.listed()
    emit(found, _lines(found, state.at), as_json=as_json)


def _lines(found: list[dict[str, Any]], now: int) -> list[str]:
    from countermark.audit import safe, when

    rows, away = [], []
    for one in found:
        first = [one["person"], safe(one["name"]), ", ".join(one["roles"])]
        for key in one["keys"] or [None]:
            if key is None:
                rows.append([*first, "", "", "no key: signs nothing"])
            else:
                row = key["enrolled"]
                since = (
                    "by the policy"
                    if row is None
                    else f"#{row['seq']} on {when(row['at'])} by {' and '.join(row['by'])}"
                )
                rows.append([*first, key["kind"], key["fingerprint"], f"{since}  {safe(key['label'])}".rstrip()])
            first = ["", "", ""]
        if one["absence"] is not None and one["absence"]["until"] > now:
            said = one["absence"]
            away.append(f"{one['person']} is away from {when(said['from'])} until {when(said['until'])}: "
                        f"{said['stands_in']} answers")  # fmt: skip
    lines = table(("person", "name", "roles", "key", "fingerprint", "enrolled"), rows)
    return [*lines, *away] or ["No policy is active: nobody is enrolled."]


@people.command()
@click.argument("person", metavar="PERSON")
@click.option("--new", metavar="TEXT", help="The new public key, as `keys new` prints it.")
@click.option("--offer", metavar="CODE", help="The code of a passkey that PERSON offers on the console's page.")
@click.option("--server", metavar="URL", help="Where the offer is (default: the server of this deployment).")
@click.option("--label", metavar="TEXT", default="", help="What the key is kept in; for a --new one.")
@by_option
@key_option
@out_option
@second_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@as_json_option
@pass_here
def enrol(
    here: Here, person: str, new: str | None, offer: str | None, server: str | None, label: str, by: str | None,
    key: Path, out: Path | None, second: Path | None, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a key one of PERSON's. Compare the fingerprint with PERSON before you sign.

    PERSON signs with a key they have, or two others sign who have the role principal or operator: the first with --out
    FILE, the other with --second FILE. In a deployment whose policy says `test = true` one other is enough.
    """
    if (new is not None) + (offer is not None) + (second is not None) != 1:
        raise click.UsageError("say --new TEXT, --offer CODE, or --second FILE")
    from countermark.authority import sign_enrolment
    from countermark.wiring import open_deployment

    config, signer = here.config(), by or person
    private = enrolled_here(config, signer, key)
    signed: list[dict[str, str]] = []
    if second is not None:
        documents, signed = read_half(second, "enrol", signer)
        asked = documents[0]
    else:
        asked = (
            _drafted(config, person, new, label)
            if new is not None
            else _offered(config, offer, server, signer, private)
        )
    document = _same(asked, person)
    for line in _shown(document):
        folded(line, err=as_json)
    if not yes:
        click.confirm(f"Enrol exactly this key, as {signer}", abort=True, err=as_json)
    signed = [*signed, sign_enrolment(document, signer, private)]
    if out is not None:
        write_half(out, "enrol", [asked], signed)
        emit({"file": str(out), **asked}, f"{good('Signed')} into {out}. Now somebody else: --second {out}",
             as_json=as_json)  # fmt: skip
        return
    with open_deployment(config.root, recover=False) as handle:
        answer = handle.call("key.enrol", {"enrolment": document, "signed": signed, "proof": asked["proof"]})
    emit(answer, f"{good('Enrolled')} for {person}, record #{answer['seq']}.", as_json=as_json)


def _same(asked: dict[str, Any], person: str) -> dict[str, Any]:
    """The enrolment's document, checked, and about this person. Raises ``ConfigError``."""
    from countermark.authority import check_possession, parse_enrolment

    if asked.keys() != {"enrolment", "proof"}:
        raise ConfigError("this is no enrolment")
    order = parse_enrolment(asked["enrolment"])
    check_possession(order, asked["proof"])
    if order.person != person:
        raise ConfigError(f"this is a key of {order.person}, not of {person}")
    return order.document()


def _drafted(config: Config, person: str, key: str, label: str) -> dict[str, Any]:
    from secrets import token_hex

    from countermark.authority import Passkey, parse_key
    from countermark.model.clock import US, SystemClock

    if isinstance(parse_key(key), Passkey):
        raise ConfigError(
            "a passkey shows that somebody holds it", hint="Offer it on the console's page: --offer CODE."
        )
    document = {
        "v": 1, "deployment": config.deployment, "person": person, "key": key, "label": label, "nonce": token_hex(16),
        "not_after": SystemClock().now_us() + ENROL_DAYS * 86_400 * US,
    }  # fmt: skip
    return {"enrolment": document, "proof": None}


def _offered(config: Config, code: str | None, server: str | None, signer: str, private: Any) -> dict[str, Any]:
    from countermark.wiring import fetch_offer

    found = fetch_offer(config, code or "", server, signer, private)
    return {"enrolment": found["enrolment"], "proof": found["proof"]}


def _shown(document: dict[str, Any]) -> list[str]:
    """What is signed, in words."""
    from countermark.audit import safe, when
    from countermark.authority import Passkey, fingerprint, parse_key

    key = parse_key(document["key"])
    kind = f"a passkey for {key.origin}" if isinstance(key, Passkey) else "a key in a file"
    return [
        f"A new key for {document['person']}",
        f"  kind         {kind}",
        f"  label        {safe(document['label']) or 'none'}",
        f"  fingerprint  {fingerprint(document['key'])}",
        f"  until        {when(document['not_after'])}, to be recorded",
    ]


@people.command()
@click.argument("person", metavar="PERSON")
@click.argument("which", metavar="KEY")
@click.option("--reason", metavar="TEXT", required=True, help="Why; it stands in the record.")
@by_option
@key_option
@as_json_option
@pass_here
def remove(here: Here, person: str, which: str, reason: str, by: str | None, key: Path, as_json: bool) -> None:
    """End a key of PERSON for good. KEY is its text, or the first digits of its fingerprint.

    PERSON signs with any key they have, or somebody else signs who has the role principal or operator.
    """
    from countermark.audit import present_state
    from countermark.authority import fingerprint, sign_removal
    from countermark.wiring import open_deployment

    config, signer = here.config(), by or person
    private = enrolled_here(config, signer, key)
    with reading(config) as store:
        known = present_state(store).people.get(person)
    texts = [] if known is None else [str(one) for one in known.keys]
    digits = which.replace(" ", "").lower()
    close = [text for text in texts if fingerprint(text).replace(" ", "").startswith(digits)]
    found = [which] if which in texts else close if len(digits) >= FINGERPRINT_MIN else []
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} keys of {person} begin with {which[:40]}", hint="See `countermark people list`."
        )
    order = {"v": 1, "deployment": config.deployment, "person": person, "key": found[0], "by": signer, "reason": reason}
    with open_deployment(config.root, recover=False) as handle:
        answer = handle.call("key.remove", sign_removal(order, private))
    emit(answer, f"{good('Removed')} {fingerprint(found[0])} of {person}, record #{answer['seq']}.", as_json=as_json)


@people.command()
@click.argument("person", metavar="PERSON")
@click.option("--stands-in", metavar="NAME", help="Who answers with PERSON's roles.")
@click.option("--from", "since", metavar="TIME", help="From when, as 2026-12-21 or 2026-12-21T18:00 (default: now).")
@click.option("--until", metavar="TIME", help="Until before when; times are those of the policy's zone.")
@by_option
@key_option
@out_option
@second_option
@as_json_option
@pass_here
def away(
    here: Here, person: str, stands_in: str | None, since: str | None, until: str | None, by: str | None, key: Path,
    out: Path | None, second: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Say who answers for PERSON while they are away. It takes the place of what was said before.

    PERSON signs, or two others who have the role principal and do not stand in: the first with --out FILE, the other
    with --second FILE.
    """
    from countermark.authority import parse_absence, sign_absence
    from countermark.wiring import open_deployment

    config, signer = here.config(), by or person
    private = enrolled_here(config, signer, key)
    signed: list[dict[str, str]] = []
    if second is not None:
        documents, signed = read_half(second, "away", signer)
        document = parse_absence(documents[0]).document()
        if document["person"] != person:
            raise ConfigError(f"{second} is about {document['person']}")
    else:
        if stands_in is None or until is None:
            raise click.UsageError("say --stands-in NAME and --until TIME")
        document = {"v": 1, "deployment": config.deployment, "person": person, "stands_in": stands_in,
                    "from": _moment(config, since), "until": _moment(config, until)}  # fmt: skip
    text = _absence(document)
    folded(text, err=as_json)
    signed = [*signed, sign_absence(document, signer, private)]
    if out is not None:
        write_half(out, "away", [document], signed)
        emit({"file": str(out), "absence": document}, f"{good('Signed')} into {out}. Now somebody else: --second {out}",
             as_json=as_json)  # fmt: skip
        return
    with open_deployment(config.root, recover=False) as handle:
        answer = handle.call("absence.set", {"absence": document, "signed": signed})
    emit(answer, f"{good('Recorded')}, #{answer['seq']}.", as_json=as_json)


def _absence(document: dict[str, Any]) -> str:
    from countermark.audit import when

    return careful(
        f"{document['stands_in']} answers for {document['person']} from {when(document['from'])} "
        f"until {when(document['until'])}"
    )


def _moment(config: Config, text: str | None) -> int:
    """Microseconds of a time in the policy's zone; now without one. Raises ``ArgumentError``."""
    from zoneinfo import ZoneInfo

    from countermark.audit import present_state
    from countermark.model.clock import US, SystemClock

    if text is None:
        return SystemClock().now_us()
    with reading(config) as store:
        bundle = present_state(store).bundle
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentError(f"{text[:40]} is no time", field="time", hint="Write 2026-12-21T18:00.") from None
    zone = ZoneInfo("UTC" if bundle is None else bundle.compiled.zone)
    whole = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    return int(whole.timestamp()) * US
