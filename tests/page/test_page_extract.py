"""The page of an extract: its scope on top, figures as the verifier makes them, and in Node the same verdict."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "audit"))

from test_audit_extract import AGENT, MONDAY, TUESDAY, WEDNESDAY, Place, of
from test_page_node import checked, codes_of, needs_node

from countermark.audit import Wanted, page
from countermark_verify import parse_trust, verify

SUNDAY = date(2026, 11, 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("extract"))
    yield found
    found.store.close()


def trust(place: Place, made: Any, *, verified: bool = True) -> bytes:
    head = {"size": made.size, "root": made.root, "source": "kept", "verified": verified}
    return json.dumps({**place._trust, "heads": [head]}).encode()


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def figures(raw: bytes) -> Any:
    return json.loads(raw.split(b'id="figures">', 1)[1].split(b"</script>", 1)[0])


def test_the_scope_stands_on_top_and_counts_what_is_of_it(place: Place) -> None:
    """Monday has three payments. Tuesday has none, and the page says that Wednesday's stands beside it."""
    place.export("page.zip", of(AGENT, MONDAY))
    found = members(place.folder / "page.zip")
    said = figures(found["index.html"])
    assert said["scope"]["day"] == "2026-11-02"
    assert (said["inside"]["actions"], said["actions"]) == (3, 3)
    assert f"What did agent <b>{AGENT}</b> do on" in found["index.html"].decode()
    assert found["population.csv"].count(b"\r\n") == 4
    place.export("page.zip", of(AGENT, TUESDAY))
    found = members(place.folder / "page.zip")
    said = figures(found["index.html"])
    assert (said["inside"], said["actions"]) == ({"actions": 0, "asked": [], "totals": []}, 1)
    assert "1 other action" in found["index.html"].decode()


def test_two_extracts_are_the_same_bytes(place: Place) -> None:
    """Also the members for people; and without a page there are none."""
    first = place.export("a.zip", of(AGENT, MONDAY)).path.read_bytes()
    assert place.export("b.zip", of(AGENT, MONDAY)).path.read_bytes() == first


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ((b'"inside":{"actions":3', b'"inside":{"actions":2'), "index.html", "V15.page"),
        ((b'"day":"2026-11-02"', b'"day":"2026-11-03"'), "index.html", "V15.page"),
        ((b"\r\n", b"\n"), "population.csv", "V15.population"),
    ],
)
def test_figures_of_another_scope_are_refuted(
    place: Place, monkeypatch: pytest.MonkeyPatch, old: tuple[bytes, bytes], new: str, code: str
) -> None:
    """V15.page and V15.population hold for extracts as well."""
    honest = page.for_people

    def forged(*args: Any, **named: Any) -> dict[str, bytes]:
        made = honest(*args, **named)
        assert old[0] in made[new]
        return made | {new: made[new].replace(*old)}

    monkeypatch.setattr(page, "for_people", forged)
    made = place.export("forged.zip", of(AGENT, MONDAY))
    report = verify(made.path, parse_trust(trust(place, made)))
    assert report.codes() == [code]


@pytest.mark.slow
@needs_node
def test_a_browser_reaches_the_verifiers_verdict(place: Place, tmp_path: Path) -> None:
    """A day, a day of nothing, a case, a period: verified under a verified head, incomplete under another, with
    the same number of records of the scope."""
    wanted: Mapping[str, Wanted] = {
        "day": of(AGENT, MONDAY), "nobody": of("nobody", MONDAY), "empty": of(AGENT, TUESDAY),
        "case": Wanted(case=place.monday[0].action), "period": Wanted(days=(SUNDAY, WEDNESDAY)),
    }  # fmt: skip
    packs: list[tuple[Path, Path | None]] = []
    counted = []
    for name, one in wanted.items():
        made = place.export(f"{name}.zip", one)
        for verified in (True, False):
            path = tmp_path / f"{name}-{verified}.json"
            path.write_bytes(trust(place, made, verified=verified))
            packs.append((made.path, path))
        report = verify(made.path, parse_trust(trust(place, made)))
        assert report.verdict == "verified"
        counted.append(report.pack["scope"]["records"])
    reports = checked(tmp_path, packs)
    assert [one["verdict"] for one in reports[::2]] == ["verified"] * len(wanted), [codes_of(r) for r in reports]
    assert [one["verdict"] for one in reports[1::2]] == ["incomplete"] * len(wanted)
    assert [one["scope"]["records"] for one in reports[::2]] == counted
