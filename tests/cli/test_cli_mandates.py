"""``mandate show``: the tree, in words that add up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_support import document, ok, run

from countermark.authority import grant, load_private
from countermark.model.clock import SystemClock
from countermark.wiring.init import Made, mandate_document

sys.path.insert(0, str(Path(__file__).parents[1] / "gate"))  # the rig of a gate over a provider in memory
from rig import AGENT, Provider, hold, make, pay, signed_revocation

DAY_US = 86_400_000_000
LIMITS = [
    {"currency": "eur", "amount": 5_000, "over_us": 0}, {"currency": "eur", "amount": 10_000, "over_us": DAY_US},
    {"currency": "*", "amount": 3, "over_us": None},
]  # fmt: skip


def grant_below(handle: Any, made: Made, parent: str | None, **members: Any) -> str:
    now = SystemClock().now_us()
    fields: dict[str, Any] = {"not_before": now - 1_000_000, "not_after": now + DAY_US, **members}
    if parent is not None:
        above = next(row for row in handle.call("mandates", {}) if row["mandate"] == parent)
        fields["not_after"] = above["not_after"]
        fields["not_before"] = above["not_before"]
    document = mandate_document(made.deployment, "treasurer", AGENT, parent=parent, **fields)
    return str(handle.call("mandate.grant", grant(document, load_private(made.people["treasurer"]))))


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Made, dict[str, str]]:
    """A root with two children, of which one was revoked; one payment confirmed, one whose outcome is unknown."""
    provider = Provider(["", "lost_before", "lost_before", "lost_before"], lookup="provider_error")
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        root = grant_below(handle, made, None, limits=LIMITS, purpose="rent")
        left = grant_below(handle, made, root, purpose="rent: \u202e[31mmay")
        right = grant_below(handle, made, root, purpose="rent: june", payees=["acme-paper"])
        leaf = grant_below(handle, made, left, purpose="rent: \u202e[31mmay", limits=LIMITS[:1])
        handle.call("mandate.revoke", signed_revocation(made, right))
        started = handle.start_run(mandate=leaf)
        assert pay(handle, 1, 1_500, run=started).status == "confirmed"
        assert pay(handle, 2, 2_500, run=started).status == "unknown"
    return made, {"root": root, "left": left, "right": right, "leaf": leaf}


def test_the_tree_shows_what_is_used_held_and_free(grown: tuple[Made, dict[str, str]]) -> None:
    """Of the root's limits: one payment is used, one held, the rest free; what an agent's words hide is spelled out."""
    made, names = grown
    text = ok(run("-C", str(made.root), "mandate", "show"))
    rows = [line.strip("│├└─ ") for line in text.splitlines()]
    assert [row for row in rows if row.startswith("15.00 EUR")] == [
        "15.00 EUR  25.00 EUR  60.00 EUR  100.00 EUR in any 1 day"
    ]
    assert any(row.split() == ["1", "payment", "1", "payment", "1", "payment", "3", "payments", "over", "its", "life"]
               for row in rows)  # fmt: skip
    assert "\u202e" not in text
    assert "\\u202e[31mmay" in text
    title = {name: next(line for line in text.splitlines() if digest[7:19] in line) for name, digest in names.items()}
    assert title["right"].endswith("revoked")
    assert all(title[name].endswith("in force") for name in ("root", "left", "leaf"))
    assert title["left"].startswith("├─ ")
    assert title["leaf"].startswith("│  └─ ")
    assert title["right"].startswith("└─ ")


def test_a_part_of_the_tree_can_be_asked_for(grown: tuple[Made, dict[str, str]]) -> None:
    """With a digest's first digits: that mandate and those below it; as JSON the same document as the gate's."""
    made, names = grown
    here = ("-C", str(made.root), "mandate", "show")
    text = ok(run(*here, names["left"][7:17]))
    assert names["leaf"][7:19] in text
    assert names["right"][7:19] not in text
    found = document(run(*here, names["left"], "--json"))
    assert [entry["mandate"] for entry in found] == [names["left"], names["leaf"]]
    whole = {entry["mandate"]: entry for entry in document(run(*here, "--json"))}
    assert [[row["used"], row["held"], row["free"]] for row in whole[names["root"]]["limits"]] == [
        [0, 0, 5_000], [1_500, 2_500, 6_000], [1, 1, 1],
    ]  # fmt: skip
    assert whole[names["right"]]["why_not"] == "revoked"
    with hold(made.root, Provider(["lost_before"] * 9, lookup="provider_error")) as handle:
        asked = {entry["mandate"]: entry for entry in handle.call("mandates", {})}
    assert json.dumps(asked[names["root"]]["limits"]) == json.dumps(whole[names["root"]]["limits"])


def test_below_a_revoked_mandate_nothing_is_in_force(grown: tuple[Made, dict[str, str]]) -> None:
    """A child of a revoked mandate says that something above it ended."""
    made, names = grown
    with hold(made.root, Provider()) as handle:
        handle.call("mandate.revoke", signed_revocation(made, names["root"]))
        found = {entry["mandate"]: entry for entry in handle.call("mandates", {})}
    assert [found[names[name]]["why_not"] for name in ("root", "left", "right", "leaf")] == [
        "revoked", "ancestor", "revoked", "ancestor",
    ]  # fmt: skip
    assert "ended with one above it" in ok(run("-C", str(made.root), "mandate", "show"))
