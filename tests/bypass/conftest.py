"""One gate under attack for all families; when they are through with it, the books and the log are judged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs extra: server")

sys.path.insert(0, str(Path(__file__).resolve().parent))

from siege import Siege, judge_books, twin_for, unsound


@pytest.fixture(scope="session")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """A served deployment. Whatever was tried: each movement has its intent, none came twice, every decision holds."""
    folder = tmp_path_factory.mktemp("siege")
    with twin_for(folder / "twin") as twin:
        made = Siege(folder, twin)
        try:
            yield made
        finally:
            code = made.stop()
        assert code == 0
        assert judge_books(made.root, twin) == []
        assert unsound(made.root) == []
