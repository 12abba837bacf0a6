"""docs/people.md, command by command; the phone's part is played by an authenticator in software."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from walking import script, walk

PHONE = """import json, sys, urllib.request
sys.path.insert(0, {tests!r})
from soft_passkey import SoftPasskey
from countermark.model.canon import canon

def post(path, body):
    headers = {{"Content-Type": "application/json"}}
    asked = urllib.request.Request(sys.argv[1] + path, json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(asked, timeout=20))

phone = SoftPasskey(1)
draft = post("/v1/people/drafts", {{"person": "controller", "key": phone.text, "label": "phone"}})["enrolment"]
proof = phone.sign("countermark/v1/enrolment-proof", canon(draft))
print(post("/v1/people/offers", {{"enrolment": draft, "proof": proof}})["code"])
"""


@pytest.mark.slow
def test_the_page_on_people_works_as_typed(tmp_path: Path) -> None:
    """A second key, a passkey by its code, a lost key removed, an absence; the records are sound afterwards."""
    (tmp_path / "phone.py").write_text(PHONE.format(tests=str(Path(__file__).resolve().parent.parent)))
    commands = script("people.md", (), ("page",))
    commands = commands.replace("--port 8521", "--port 0").replace(
        "sleep 3", "until grep -q http served.txt; do :; done"
    )
    url = "$(grep -o 'http://[0-9.:]*' served.txt | head -1)"
    commands = commands.replace("http://127.0.0.1:8521", url).replace("K7QM-3XHD", f'"$(python phone.py {url})"')
    told = walk(
        commands + "\ncountermark people list --json > people.json\ncountermark audit reperform\n", tmp_path, 120
    )
    assert "treasurer answers" in told
    people = {one["person"]: one for one in json.loads((tmp_path / "people.json").read_text("utf-8"))}
    assert [(key["kind"], key["label"]) for key in people["controller"]["keys"]] == [
        ("ed25519", "office safe"), ("passkey", "phone"),
    ]  # fmt: skip
    assert people["controller"]["absence"]["stands_in"] == "treasurer"
