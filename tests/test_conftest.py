"""What holds for every test is seen to fail when it does not hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def test_a_test_that_leaves_something_in_the_checkout_fails_the_run(tmp_path: Path) -> None:
    """What .gitignore names may come; any other new name at the top ends a run with 1, whatever its tests say."""
    (tmp_path / "tests").mkdir()
    shutil.copy(HERE / "conftest.py", tmp_path / "tests")
    shutil.copy(HERE.parent / ".gitignore", tmp_path)
    (tmp_path / "old").touch()
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "tests"]
    for made, status in (("build", 0), ("http:/127.0.0.1:8521", 1)):
        text = f"import os\n\ndef test_it():\n    os.makedirs({made!r})\n    open('old', 'w').close()\n"
        (tmp_path / "tests" / "test_it.py").write_text(text)
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, "1 passed" in done.stdout) == (status, True), done.stdout
        assert ("the tests left in" in done.stderr) == bool(status)
