"""Sessions: how they begin, what ends them, and whose forms are taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from visitor import Face, Visitor, text_of


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    with Face(Path(tmp_path_factory.mktemp("console")) / "d") as found:
        yield found


def test_a_key_file_signs_a_person_in(face: Face) -> None:
    """The code of a key file opens a session under a fresh cookie, and the door's cookie ends."""
    visitor = Visitor(face)
    answer = visitor.sign_in("controller")
    assert (answer.status, answer.headers["location"]) == (303, "/waiting")
    assert set(visitor.cookies) == {"countermark"}
    page = visitor.get("/waiting")
    assert page.status == 200
    assert "Controller" in text_of(page)
