"""The witness policy: what is refused with file, line and the nearest name, and what stands in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.connectors.stripe import DRAFTS
from countermark.log import Cosigner
from countermark.model.errors import PolicyError
from countermark.policy import Bundle, Finding, compile_bundle, template_files, with_keys

HEAD = '[tool."stripe.transfers.create"]          # pay a vendor\'s invoice\n'
STALE = '\n[witness]\nstale_after = "60s"\n'


def vkey(name: str) -> str:
    return Cosigner(f"{name}.example/w", Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())).vkey


TEXT = (
    f"witness alpha {vkey('alpha')} https://alpha.example/\nwitness acme/own {vkey('own')} https://own.example/\n"
    f"witness beta {vkey('beta')} https://beta.example/\ngroup two 2 alpha acme/own beta\nquorum two\n"
)


def compiled(
    text: str | None = TEXT, stale: str = STALE, tools: Mapping[str, str] | None = None, deployment: str = "acme"
) -> Bundle:
    """The shipped template under this witness policy."""
    files = dict(template_files("vendor-payments"))
    keys = {
        person: "ed25519:" + _b64(person)
        for person in ("treasurer", "controller", "cfo", "clerk", "operator", "auditor", "steward")
    }
    files = with_keys(files, keys)
    files["limits.toml"] += stale
    for old, new in (tools or {}).items():
        assert old in files["tools.toml"]
        files["tools.toml"] = files["tools.toml"].replace(old, new)
    if text is not None:
        files["policies/witnesses.policy"] = text
    return compile_bundle(tuple(files.items()), {"stripe": DRAFTS}, deployment)


def _b64(person: str) -> str:
    import base64

    key = Ed25519PrivateKey.from_private_bytes(sha256(person.encode()).digest()).public_key()
    return base64.b64encode(key.public_bytes_raw()).decode()


def refused(**given: object) -> list[Finding]:
    """The findings about witnesses of a policy that is refused."""
    with pytest.raises(PolicyError) as error:
        compiled(**given)  # type: ignore[arg-type]
    found = [item for item in error.value.findings if isinstance(item, Finding) and item.severity == "error"]
    assert found
    return found


def test_the_rule_stands_in_the_bundle_and_only_where_there_is_one() -> None:
    """Text and seconds as they were written; a tool says ``before`` only where it waits; read again they are equal."""
    before = {HEAD: HEAD + 'witness = "before"\n'}
    bundle = compiled(tools=before)
    assert bundle.document["compiled"]["witness"] == {"policy": TEXT, "stale_after_s": 60}
    waits = {tool["name"]: tool.get("witness") for tool in bundle.document["compiled"]["tools"]}
    assert waits["stripe.transfers.create"] == "before"
    assert set(waits.values()) == {"before", None}
    assert Bundle.from_document(bundle.document).digest == bundle.digest
    assert [(one.file, one.line, one.code) for one in bundle.warnings if one.code == "own_witness"] == [
        ("policies/witnesses.policy", 2, "own_witness")
    ]
    plain = compiled(None, "")
    assert "witness" not in plain.document["compiled"]
    assert plain.compiled.witness is None


@pytest.mark.parametrize(
    ("text", "line", "code", "hint"),
    [
        (TEXT.replace("acme/own beta", "acme/own betta"), 4, "bad_witness_policy", "Did you mean 'beta'?"),
        (TEXT.replace("quorum two", "quorum tow"), 5, "bad_witness_policy", "Did you mean 'two'?"),
        (TEXT.replace("quorum two", "quorum none"), 5, "no_witness", ""),
        (TEXT.replace("quorum two", "quorum acme/own").replace("acme/own beta", "beta"), 5, "own_witness", ""),
        (TEXT.replace("two 2", "two all"), 5, "own_witness", "'acme' is us"),
        (TEXT.replace("witness beta", "witnes beta"), 3, "bad_witness_policy", ""),
        (TEXT.replace("https://beta", "http://beta"), 3, "bad_witness_policy", "http only to this machine"),
        (TEXT.replace("https://beta.example/", "https://Beta.example/"), 3, "bad_witness_policy", "small letters"),
        (TEXT.replace("https://beta.example/", "https://beta.example/?x"), 3, "bad_witness_policy", ""),
    ],
)
def test_a_witness_policy_that_will_not_do_is_refused_with_its_line(text: str, line: int, code: str, hint: str) -> None:
    """File, line, code, and the nearest name; a quorum that needs our own witness is an error."""
    found = [one for one in refused(text=text) if one.file == "policies/witnesses.policy"]
    assert [(one.line, one.code) for one in found] == [(line, code)]
    assert hint in found[0].hint


def test_either_file_without_the_other_is_refused() -> None:
    """Who is asked and how old the answer may be belong together."""
    assert [one.code for one in refused(text=None)] == ["missing_file"]
    assert [one.code for one in refused(stale="")] == ["missing_key"]
    assert [one.code for one in refused(stale=STALE.replace("60s", "1s"))] == ["bad_value"]
    assert [one.code for one in refused(stale=STALE + 'stale_afer = "1s"\n')] == ["unknown_key"]


def test_no_tool_waits_for_witnesses_whom_nobody_named() -> None:
    """``before`` without a witness policy is an error at the tool's line; so is it for what the caller runs."""
    tools = {HEAD: HEAD + 'witness = "before"\n'}
    (found,) = [one for one in refused(text=None, stale="", tools=tools) if one.code == "no_witness"]
    assert (found.file, found.line) == ("tools.toml", 6)
    (found,) = refused(tools={HEAD: HEAD + 'witness = "after"\n'})
    assert (found.code, found.line) == ("bad_value", 6)
