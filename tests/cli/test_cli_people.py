"""people list, enrol, remove and away, as people type them; a passkey that is offered to a server."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import Bench, Provider, document, ok
from soft_passkey import SoftPasskey

from countermark.authority import fingerprint, generate, public_of, save_private
from countermark.model.canon import canon
from countermark.model.digest import ENROLMENT_PROOF
from countermark.policy import template_files
from countermark.server import Listener
from countermark.wiring import ServeSettings
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import init_deployment

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

TWO_MORE = """[people.auditor]
name = "Auditor"
roles = ["operator"]
key = "{{KEY:auditor}}"

[people.director]
name = "Director"
roles = ["principal"]
key = "{{KEY:director}}"

[agents.treasury]"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Bench]:
    """A deployment of four people, owned by this process."""
    limits = template_files("vendor-payments")["limits.toml"].replace("[agents.treasury]", TWO_MORE)
    root, provider = tmp_path / "deployment", {"stripe": Provider()}
    made = init_deployment(root, "vendor-payments", "acme", connectors=provider, edit={"limits.toml": limits})
    with open_deployment(root, agent="treasury", connectors=provider) as handle:
        yield Bench(made, handle)


@pytest.fixture
def page(here: Bench) -> Iterator[str]:
    """The same deployment, served."""
    listener = Listener(here.handle, settings=ServeSettings(port=0))
    yield listener.start()
    listener.stop()


def new_key(tmp_path: Path, name: str) -> tuple[str, str]:
    """A key file and its public half."""
    private = generate()
    save_private(tmp_path / name, private)
    return str(tmp_path / name), str(public_of(private))


def post(url: str, path: str, body: Any) -> Any:
    """What a page sends."""
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return json.load(answer)


def keys_of(here: Bench, person: str) -> list[dict[str, Any]]:
    listed = document(here.run("people", "list", "--json"))
    return list(next(one for one in listed if one["person"] == person)["keys"])


def test_a_second_key_file_is_enrolled_and_the_first_removed(here: Bench, tmp_path: Path) -> None:
    """With the key they have a person enrols another; after the loss of the first, the second removes it."""
    file, public = new_key(tmp_path, "second.pem")
    enrol = ["people", "enrol", "controller", "--new", public, "--label", "office safe", "--key"]
    told = ok(here.run(*enrol, here.key("controller"), "--yes"))
    assert fingerprint(public) in told
    assert "office safe" in ok(here.run("people", "list"))
    assert [key["enrolled"] is None for key in keys_of(here, "controller")] == [True, False]
    first = keys_of(here, "controller")[0]["fingerprint"]
    remove = ["people", "remove", "controller", first.replace(" ", "")[:8], "--reason", "lost", "--key", file]
    assert first in ok(here.run(*remove))
    assert [key["key"] for key in keys_of(here, "controller")] == [public]
    assert document(here.run(*enrol, here.key("controller"), "--yes", "--json"), 1)["error"]["code"] == "not_authorised"
    again = ["people", "enrol", "controller", "--new", public, "--key", file, "--yes", "--json"]
    assert document(here.run(*again), 1)["error"]["code"] == "key_taken"


def test_nothing_is_signed_without_a_yes(here: Bench, tmp_path: Path) -> None:
    """Whoever sees another fingerprint than expected says no, and nothing happened."""
    _, public = new_key(tmp_path, "second.pem")
    asked = here.run("people", "enrol", "controller", "--new", public, "--key", here.key("controller"), stdin="n\n")
    assert asked.exit_code == 1
    assert len(keys_of(here, "controller")) == 1


def test_two_others_enrol_for_somebody_who_lost_every_key(here: Bench, tmp_path: Path) -> None:
    """The first signs into a file, the second hands it in; the same person twice, or one alone, does not do."""
    _, public = new_key(tmp_path, "second.pem")
    half = str(tmp_path / "half.json")
    by = ["--by", "treasurer", "--key", here.key("treasurer"), "--yes"]
    alone = here.run("people", "enrol", "controller", "--new", public, *by, "--json")
    assert document(alone, 1)["error"]["code"] == "four_eyes"
    ok(here.run("people", "enrol", "controller", "--new", public, *by, "--out", half))
    assert here.run("people", "enrol", "controller", "--second", half, *by).exit_code == 1
    other = ["--by", "auditor", "--key", here.key("auditor"), "--yes"]
    assert here.run("people", "enrol", "director", "--second", half, *other).exit_code == 1
    ok(here.run("people", "enrol", "controller", "--second", half, *other))
    (row,) = [key for key in keys_of(here, "controller") if key["key"] == public]
    assert row["enrolled"]["by"] == ["treasurer", "auditor"]


def test_a_passkey_is_offered_on_the_page_and_enrolled_by_its_code(here: Bench, page: str, tmp_path: Path) -> None:
    """One assertion by the page; the operator fetches it by its code, sees the fingerprint, signs."""
    phone = SoftPasskey(1)
    draft = post(page, "/v1/people/drafts", {"person": "controller", "key": phone.text, "label": "phone"})
    proof = phone.sign(ENROLMENT_PROOF, canon(draft["enrolment"]))
    offer = post(page, "/v1/people/offers", {"enrolment": draft["enrolment"], "proof": proof})
    assert offer["fingerprint"] == fingerprint(phone.text)
    code = offer["code"].lower().replace("-", " ")
    words = ["people", "enrol", "controller", "--offer", code, "--server", page, "--key", here.key("controller")]
    told = ok(here.run(*words, "--yes"))
    assert offer["fingerprint"] in told
    assert "a passkey for http://localhost:8383" in told
    assert [key["kind"] for key in keys_of(here, "controller")] == ["ed25519", "passkey"]
    other = ["people", "enrol", "controller", "--offer", "0000-0000", "--server", page, "--json"]
    assert document(here.run(*other, "--key", here.key("controller")), 1)["error"]["code"] == "not_found"
    wrong = ["people", "enrol", "director", "--offer", code, "--server", page, "--yes", "--json"]
    assert here.run(*wrong, "--by", "controller", "--key", here.key("controller")).exit_code == 1


def test_a_passkey_that_nobody_shows_is_not_enrolled_by_text(here: Bench) -> None:
    """A passkey goes through an offer, which has its proof."""
    words = ["people", "enrol", "controller", "--new", SoftPasskey(1).text, "--key", here.key("controller"), "--yes"]
    assert here.run(*words).exit_code == 1
    nowhere = ["people", "enrol", "controller", "--offer", "0000-0000", "--server", "http://127.0.0.1:9", "--json"]
    assert document(here.run(*nowhere, "--key", here.key("controller")), 1)["error"]["code"] == "no_server"


def test_an_absence_is_said_by_the_person_or_by_two_principals(here: Bench, tmp_path: Path) -> None:
    """The list shows who answers until when; the policy's zone is meant."""
    words = ["people", "away", "controller", "--stands-in", "auditor", "--until", "2099-01-02"]
    assert here.run(*words, "--from", "2098-12-20T18:00", "--key", here.key("controller")).exit_code == 0
    assert "auditor answers" in ok(here.run("people", "list"))
    (said,) = [one["absence"] for one in document(here.run("people", "list", "--json")) if one["absence"] is not None]
    assert (said["until"] - said["from"]) // 3_600_000_000 == 12 * 24 + 6
    half = str(tmp_path / "half.json")
    later = ["people", "away", "controller", "--stands-in", "auditor", "--from", "2098-01-01", "--until", "2098-02-01"]
    ok(here.run(*later, "--by", "treasurer", "--key", here.key("treasurer"), "--out", half))
    second = ["people", "away", "controller", "--second", half, "--by", "director", "--key", here.key("director")]
    ok(here.run(*second))
    assert here.run("people", "away", "controller", "--key", here.key("controller")).exit_code == 64
    assert here.run(*words[:-1], "soon", "--key", here.key("controller")).exit_code == 1
