"""A small hostile pack costs its reader little: a verdict within seconds and 500 MB, and never `verified`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from verify_builder import SCHEMA, Maker, bundle_document
from verify_bytes import canon, digest, key_text, sign, zipped

from countermark_verify import arguments, parse_trust, verify
from countermark_verify import canon as reader
from countermark_verify.container import DISCLOSURES_BYTES_MAX, bytes_max
from countermark_verify.errors import Malformed

PAID = {"amount": 5, "to": "iban 0", "invoice": "I"}
CPU_S = 20  # an eighth of it is used, on a slow machine a half; what is not bounded takes minutes
MEMORY_BYTES = 500 * 2**20
# The limits are set within the child: a fork of a process with threads may hang.
LIMITED = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_S}, {CPU_S}))
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
runpy.run_module("countermark_verify", run_name="__main__", alter_sys=True)
"""
TYPES = '@doc("x") type T0 = {a: Long, b: Long};' + "".join(
    f'@doc("x") type T{n} = {{a: T{n - 1}, b: T{n - 1}}};' for n in range(1, 40)
)


def _maker(change: Callable[[dict[str, Any]], Any] = lambda compiled: None) -> Maker:
    document = json.loads(canon(bundle_document()))
    change(document["compiled"])
    maker = Maker()
    maker.bundle = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    maker.bundle_digest = digest("bundle", maker.bundle)
    return maker.open()


def _schema(text: str) -> bytes:
    return _maker(lambda compiled: compiled.update(schema=text)).pack()


def _types_behind_annotations() -> bytes:
    return _schema(TYPES + SCHEMA.replace('"owner": String', '"owner": String, "more"?: T39'))


def _types_in_a_namespace() -> bytes:
    return _schema(
        "namespace N {" + TYPES + "}" + SCHEMA.replace('"owner": String', '"owner": String, "more"?: N::T39')
    )


def _actions_in_a_chain() -> bytes:
    return _schema(SCHEMA + 'action "a0";' + "".join(f'action "a{n}" in ["a{n - 1}"];' for n in range(1, 6_000)))


def _entities_in_a_chain() -> bytes:
    def change(compiled: dict[str, Any]) -> None:
        rows = json.loads(compiled["entities"])
        for n in range(6_000):
            parents = [{"type": "Payee", "id": f"x{n - 1}"}] if n else []
            rows.append({"uid": {"type": "Payee", "id": f"x{n}"}, "attrs": {}, "parents": parents})
        compiled["entities"] = json.dumps(rows)

    return _maker(change).pack()


def _a_fact_listed_often() -> bytes:
    maker = _maker(lambda compiled: compiled["tools"][0].update(facts=["day_sum"] * 30_000))
    for n in range(20):
        maker.decide(f"c{n}", "bank.pay", {"amount": 5, "to": "iban 0", "invoice": f"I{n}"})
    return maker.pack()


def _a_member_read_often() -> bytes:
    return _maker(lambda compiled: compiled["tools"][0].update(reads=["amount"] * 30_000)).pack()


def _more_tools_and_policies_than_can_be_compared() -> bytes:
    def change(compiled: dict[str, Any]) -> None:
        compiled["tools"] += [compiled["tools"][1] | {"name": f"t{n}"} for n in range(900)]
        compiled["cedar"] += "".join(f'@id("p{n}") permit(principal, action, resource);' for n in range(4_900))

    return _maker(change).pack()


def _a_long_chain_of_mandates() -> bytes:
    maker = _maker()
    signed = sign("payer", "mandate", {})
    document = dict(maker.records[2]["body"]["mandate"]) | {"limits": [], "agent_key": key_text("payer")}
    parent = maker.mandate
    for n in range(1_500):
        document |= {"parent": parent, "nonce": str(n)}
        raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        parent = digest("mandate", raw)
        maker.add("mandate.granted", {"mandate": dict(document), "digest": parent, **signed})
    maker.add("run.started", {"run": "deep", "agent": "payer", "mandate": parent, "purpose": ""})
    return maker.pack()


def _disclosing(data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({"disclosures.json": data})


def _disclosures_beyond_their_size() -> bytes:
    return _maker().pack(change=_disclosing(b'{"fields":[' + b"{}," * (63 * 2**20 // 3) + b"{}]}"))


def _disclosures_of_nothing() -> bytes:
    return _maker().pack(change=_disclosing(b'{"fields":[' + b"{}," * (15 * 2**20 // 3) + b'{}],"requests":[],"v":1}'))


def _disclosures_of_quotes() -> bytes:
    return _maker().pack(change=_disclosing(b'"' * (15 * 2**20)))


def _disclosures_of_short_strings() -> bytes:
    return _maker().pack(change=_disclosing(b'"ab' * (5 * 2**20)))


def _disclosures_of_escapes() -> bytes:
    return _maker().pack(change=_disclosing(b'["' + b'\\"' * (7 * 2**20) + b'"]'))


def _many_disclosures() -> bytes:
    rows = (
        f'{{"alias":"memo","salt":"{"0" * 32}","seq":{n},"value":{n}}}'.encode() for n in range(1_000_000, 1_185_000)
    )
    return _maker().pack(change=_disclosing(b'{"fields":[' + b",".join(rows) + b'],"requests":[],"v":1}'))


def _a_bundle_of_small_values() -> bytes:
    """As many values as a bundle may hold, in the shape that takes most memory."""
    maker = _maker()
    rows = b",".join(b'{"%d":1}' % n for n in range(390_000))
    maker.bundle = b'{"compiled":[' + rows + b'],"source":[],"v":1}'
    maker.bundle_digest = digest("bundle", maker.bundle)
    return maker.pack()


def _a_head_of_a_size_beyond_all_logs() -> bytes:
    def change(members: dict[str, bytes]) -> None:
        members["log/checkpoint"] = members["log/checkpoint"].replace(b"\n4\n", b"\n9007199254740991\n", 1)

    return _maker().pack(change=change)


def _records_that_are_none() -> bytes:
    bundles = {f"log/tile/entries/{n:03}": b"\0\2{}" * 256 for n in range(1_000)}

    def change(members: dict[str, bytes]) -> None:
        del members["log/tile/entries/000.p/4"]
        members |= bundles
        members["log/checkpoint"] = members["log/checkpoint"].replace(b"\n4\n", b"\n256000\n", 1)

    return _maker().pack(change=change)


def _kills_of_everything() -> bytes:
    maker = _maker()
    for n in range(2_000):
        scope = {"kind": "payee", "value": f"x{n}"}
        maker.add("kill.set", {"scope": scope, "reason": "", "kill": f"kill_{n:016}"})
    for n in range(200):
        maker.decide(f"c{n}", "erp.read", {"invoice": "I"})
    return maker.pack()


def _a_mandate_listed_often() -> bytes:
    """Each listing would cost all its limits again."""
    maker = _maker()
    limits = [{"currency": "EUR", "amount": 10**9, "over_us": None}] * 600
    wide = maker.grant("principal", None, nonce="wide", limits=limits)
    for n in range(30):
        maker.decide(f"c{n}", "bank.pay", PAID | {"invoice": f"I{n}"}, mandates=[wide] * 800)
    return maker.pack()


def _wide_mandates() -> bytes:
    """Long lists in every mandate of a chain, looked through for every action."""
    maker = _maker()
    tools = [f"tool-{n}" for n in range(3_000)] + ["erp.read", "bank.pay"]
    parent: str | None = None
    for n in range(20):
        parent = maker.grant("principal", parent, nonce=f"wide {n}", tools=tools, limits=[])
    maker.add("run.started", {"run": "wide", "agent": "payer", "mandate": parent, "purpose": ""})
    for n in range(300):
        maker.decide(f"c{n}", "erp.read", {"invoice": "I"}, mandates=[parent])
    return maker.pack()


STRAINS: tuple[Callable[[], bytes], ...] = (
    _types_behind_annotations,
    _types_in_a_namespace,
    _actions_in_a_chain,
    _entities_in_a_chain,
    _a_fact_listed_often,
    _a_member_read_often,
    _more_tools_and_policies_than_can_be_compared,
    _a_long_chain_of_mandates,
    _disclosures_beyond_their_size,
    _disclosures_of_nothing,
    _disclosures_of_quotes,
    _disclosures_of_short_strings,
    _disclosures_of_escapes,
    _many_disclosures,
    _a_bundle_of_small_values,
    _a_head_of_a_size_beyond_all_logs,
    _records_that_are_none,
    _kills_of_everything,
    _a_mandate_listed_often,
    _wide_mandates,
)


# One of each kind is fast enough; the others wait for the slow tests.
FAST = (_types_behind_annotations, _entities_in_a_chain, _a_member_read_often, _a_head_of_a_size_beyond_all_logs)
CASES = [
    pytest.param(strain, id=strain.__name__[1:].replace("_", " "), marks=[] if strain in FAST else [pytest.mark.slow])
    for strain in STRAINS
]


@pytest.mark.parametrize("strain", CASES)
def test_a_strain_ends_with_a_verdict(strain: Callable[[], bytes], tmp_path: Path) -> None:
    """A report on stdout, nothing on stderr, the exit code of its verdict."""
    (tmp_path / "pack.zip").write_bytes(strain())
    (tmp_path / "trust.json").write_text(json.dumps(Maker().open().trust()))
    command = [sys.executable, "-c", LIMITED, "--json", "--trust", str(tmp_path / "trust.json")]
    done = subprocess.run([*command, str(tmp_path / "pack.zip")], capture_output=True, timeout=60, check=False)
    assert (done.returncode in (1, 2, 3), done.stderr) == (True, b""), done.stderr[-2_000:]
    assert json.loads(done.stdout)["exit"] == done.returncode


def test_each_kind_of_member_has_its_own_bound() -> None:
    """What cannot be needed is refused before it is read: `V01.bounds`."""
    assert bytes_max("disclosures.json") == DISCLOSURES_BYTES_MAX
    assert bytes_max("log/tile/0/000") == 8_192
    assert bytes_max("log/tile/entries/000") == 256 * 65_537
    pack = _maker().pack(change=lambda members: members.update({"README.txt": bytes(2**20 + 1)}))
    report = verify(pack, parse_trust(json.dumps(_maker().trust()).encode()))
    assert (report.verdict, report.codes()) == ("unreadable", ["V01.bounds"])


def test_the_values_of_a_long_document_are_counted_before_it_is_parsed() -> None:
    """A bound on bytes alone would let a value of two bytes take a hundred."""
    with pytest.raises(Malformed, match="values"):
        reader.parse(b"[" + b"{}," * 300_000 + b"{}]", 2**24)
    assert reader.parse(b"[" + b"1," * 300_000 + b"1]", 2**24) == [1] * 300_001


def test_a_hostile_pattern_is_not_run() -> None:
    """Neither compiling it nor bounding its retries costs more than its length allows."""
    for pattern in ("[" * 60_000, "(a+)+b", "a?" * 500 + "a" * 500, "(" * 60_000):
        item = {"type": "string", "class": "inert", "enum": [], "chars_max": 1_000, "pattern": pattern}
        assert not arguments.matches(item, "a" * 500)


def test_a_chain_is_judged_at_its_bound() -> None:
    """64 mandates are a chain, the 65th is refuted; so are limits whose budgets no record can hold."""
    for count, codes in ((63, []), (64, ["V10.mandate"])):
        maker = _maker()
        parent = maker.mandate
        for n in range(count):
            parent = maker.grant("principal", parent, nonce=str(n), limits=[])
        report = verify(maker.pack(), parse_trust(json.dumps(maker.trust()).encode()))
        assert report.codes() == codes
    maker = _maker()
    limit = {"currency": "EUR", "amount": 1, "over_us": 0}
    maker.grant("principal", None, nonce="wide", limits=[limit] * 400)
    maker.grant("principal", maker.grant("principal", None, nonce="w", limits=[limit] * 411), limits=[limit] * 410)
    report = verify(maker.pack(), parse_trust(json.dumps(maker.trust()).encode()))
    assert (report.codes(), report.first_bad_seq) == (["V10.mandate"], 6)


def test_bundles_are_bounded_together() -> None:
    """Two hundred large bundles are not two hundred times the work of one."""
    pack = zipped({"README.txt": b""})
    assert verify(pack).verdict == "unreadable"
    document = bundle_document()
    document["compiled"]["facts"] = [
        document["compiled"]["facts"][0] | {"name": f"f{n}", "over_us": n + 1} for n in range(400)
    ]
    documents = [canon(document | {"source": [["a", str(n)]]}) for n in range(2)]
    document["compiled"]["facts"] = [row | {"over_us": row["over_us"] + 1_000} for row in document["compiled"]["facts"]]
    documents.append(canon(document))

    def change(members: dict[str, bytes]) -> None:
        members |= {f"policy/{digest('bundle', raw)[7:]}.json": raw for raw in documents}

    maker = _maker()
    report = verify(maker.pack(change=change))
    messages = [finding.message for step in report.steps for finding in step.findings if step.step == "V09"]
    assert messages.count("no activation names this bundle") == 3
