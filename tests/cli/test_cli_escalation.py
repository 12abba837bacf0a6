"""docs/escalation.md, command by command: a payment that climbs its ladder and is approved by the board."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from walking import DOCS, script, walk

from countermark.authority import generate, public_of
from countermark.policy import compile_bundle, template_files, template_people, with_keys
from countermark.wiring.connectors import drafts


@pytest.mark.slow
def test_the_page_works_as_typed(tmp_path: Path) -> None:
    """Each command ends well; the first rung is left, its people are refused, and the board's yes sends it."""
    told = walk(script("escalation.md", ["4242"]), tmp_path, 120)
    for part in ("finance 2/2", "not the controller any more", "nobody of approver answered by", "asked one of board",
                 "rung 2, signed with", "confirmed"):  # fmt: skip
        assert part in told, f"{part} in {told}"
    assert "nobody_answers" not in told


def test_every_ladder_that_the_page_shows_compiles() -> None:
    """The examples are ladders as the compiler reads them, in a policy that knows the roles."""
    page = (DOCS / "escalation.md").read_text("utf-8")
    shown = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == 2
    files = template_files("vendor-payments")
    keys = {person: str(public_of(generate())) for person in template_people(files)}
    for text in shown:
        assert tomllib.loads(text)["ladder"]
        limits = files["limits.toml"].partition("[ladder.finance]")[0] + text
        bundle = compile_bundle(tuple(with_keys({**files, "limits.toml": limits}, keys).items()), drafts())
        assert bundle.compiled.ladders["finance"].rungs[0].roles == ("approver",)
