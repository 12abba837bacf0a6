"""People in ``limits.toml``: one key or several, nobody's twice; and a policy that says it is a test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from policy_support import KEYS, LIMITS
from test_policy_compile import compiled, refused

from countermark.authority import KEYS_MAX, generate, public_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from soft_passkey import SoftPasskey

ONE = f'key = "{KEYS["controller"]}"'


def several(*keys: str) -> str:
    listed = ", ".join(f'"{key}"' for key in keys)
    return LIMITS.replace(ONE, f"keys = [{listed}]")


def test_a_person_has_one_key_or_several_of_both_kinds() -> None:
    """``key`` and ``keys`` mean the same; in the bundle there is always a list."""
    phone = SoftPasskey(1).text
    bundle = compiled(limits=several(KEYS["controller"], phone))
    assert [str(key) for key in bundle.compiled.people["controller"].keys] == [KEYS["controller"], phone]
    listed = {row["id"]: row["keys"] for row in bundle.document["compiled"]["people"]}
    assert listed == {"controller": [KEYS["controller"], phone], "treasurer": [KEYS["treasurer"]]}
    assert compiled(limits=several(KEYS["controller"])).compiled.people == compiled().compiled.people
    assert compiled(limits=several()).compiled.people["controller"].keys == ()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (several(KEYS["treasurer"]), "shared_key"),
        (several(KEYS["controller"], KEYS["controller"]), "wrong_type"),
        (several(KEYS["controller"], "ed25519:AAAA"), "bad_key"),
        (several(*(str(public_of(generate())) for _ in range(KEYS_MAX + 1))), "too_many"),
        (LIMITS.replace(ONE, f'{ONE}\nkeys = ["{SoftPasskey(2).text}"]'), "duplicate"),
        (LIMITS.replace(ONE, "keys = 5"), "wrong_type"),
        ('test = "yes"\n' + LIMITS, "wrong_type"),
    ],
)
def test_a_wrong_list_of_keys_is_a_finding(text: str, code: str) -> None:
    """Shared, repeated, weak or too many keys, both spellings at once, and a test that is not true or false."""
    assert code in {finding.code for finding in refused(limits=text)}


def test_a_test_deployment_says_so_in_its_bundle_and_another_says_nothing() -> None:
    """``test = true`` is signed with the policy; without it the bundle has no such member."""
    told = compiled(limits="test = true\n" + LIMITS)
    assert (told.compiled.test, told.document["compiled"]["test"]) == (True, True)
    for text in (LIMITS, "test = false\n" + LIMITS):
        plain = compiled(limits=text)
        assert (plain.compiled.test, "test" in plain.document["compiled"]) == (False, False)
