"""A deployment whose configuration names an authority of time, and the verifier that an auditor runs on its pack."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from publish.authority import honest
from publish.evidence import Evidence, configure, make
from vectors.stamps import Authority

from countermark import audit
from countermark.audit.clocks import Compared
from countermark.cli import doctor_host
from countermark.log import Offset
from countermark.model.clock import SystemClock
from countermark.model.errors import ConfigError
from countermark.wiring.config import load_config
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import init_deployment
from countermark_verify import Report, parse_trust, verify

TSA = Authority("tsa.example")


def judged(pack: Path, trust: dict[str, object], *authorities: Authority) -> Report:
    stamps = [{"certificate": one.pem, "operator": one.name} for one in authorities]
    return verify(pack, parse_trust(json.dumps({**trust, "stamps": stamps}).encode()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return make(tmp_path_factory.mktemp("stamped"), honest(TSA, SystemClock().now_us), TSA.pem.encode())


def test_a_deployment_stamps_its_heads_and_the_auditor_verifies_them(made: Evidence) -> None:
    """The gate's own thread asked, the record holds the token, and V16 verifies it by the auditor's certificate."""
    (stamped, *_) = made.stamped()
    assert stamped.by == "gate"
    report = judged(made.pack, made.trust, TSA)
    assert report.verdict == "verified", report.codes()
    time = report.counts["time"]
    assert (time["stamps"], time["authority"]) == (len(made.stamped()), "tsa.example")
    assert time["covers"] <= stamped.seq
    assert made.records[0].at < time["at"] < SystemClock().now_us() + 3_000_000
    assert time["offset"][0] <= 0 <= time["offset"][1]  # one clock on both sides
    assert judged(made.pack, made.trust, Authority("other.example")).codes() == ["V16.none"]


def test_without_rfc3161_client_the_verifier_says_so(made: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the trust file asks for time stamps nothing is claimed; where it does not, nothing is missing."""
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    report = judged(made.pack, made.trust, TSA)
    assert (report.verdict, report.codes()) == ("incomplete", ["V16.no_rfc3161"])
    assert report.counts["time"]["at"] is None
    assert judged(made.pack, made.trust).verdict == "verified"
    with pytest.raises(ConfigError, match="extra"):
        open_deployment(made.root)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[publish]\nwhere = 1", "takes only"),
        ("[publish]\nstamp = 1", "list of at most"),
        ('[[publish.stamp]]\nauthority = "a b"', "is a name"),
        ('[[publish.stamp]]\nauthority = "a"\nurl = "ftp://x/"', "https://HOST"),
        ('[[publish.stamp]]\nauthority = "a"\nurl = "http://x/"\ncertificate = "c"', "plain http"),
        ('[[publish.stamp]]\nauthority = "a"\nurl = "https://x/"', "PEM"),
        ('[[publish.stamp]]\nauthority = "a"\nurl = "https://x/"\ncertificate = "c"\nevery = "1s"', "1m to 7d"),
        ('[[publish.stamp]]\nauthority = "a"\nurl = "https://x/"\ncertificate = "c"\nnonce = 1', "takes only"),
        ('[[publish.stamp]]\nauthority = "a"\nurl = "https://x/"\ncertificate = "c"\nallow_addresses = 1', "networks"),
    ],
)
def test_a_setting_that_is_wrong_is_named(tmp_path: Path, line: str, said: str) -> None:
    """Configuration is strict: unknown keys, other schemes and times out of bounds are refused with their name."""
    (tmp_path / "countermark.toml").write_text(f'version = 1\ndeployment = "acme"\n{line}\n', "utf-8")
    with pytest.raises(ConfigError, match=said):
        load_config(tmp_path)


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_gate_does_not_open_with_a_certificate_that_is_none(tmp_path: Path, pem: bytes) -> None:
    """Else every token would be refused for hours before somebody looks."""
    init_deployment(tmp_path / "d", "vendor-payments", "acme")
    configure(tmp_path / "d", "https://tsa.example/", pem)
    with pytest.raises(ConfigError, match="PEM"):
        open_deployment(tmp_path / "d")


def test_doctor_shows_how_far_the_clock_was_from_the_authoritys(
    made: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest exchange bounds the offset; a clock that is off by more than a second is a warning."""

    def lines() -> list[tuple[str, str]]:
        return [line for line in doctor_host.clock(load_config(made.root)) if "tsa.example" in line[1]]

    ((state, said),) = lines()
    assert (state, " off" in said) == ("ok", True)
    for low, expected in ((30, "30.000 s ahead"), (-31, "30.000 s behind")):
        found = Compared("tsa.example", 1, Offset(low * 1_000_000, (low + 1) * 1_000_000))
        monkeypatch.setattr(audit, "compared", lambda *_, found=found: [found])
        ((state, said),) = lines()
        assert (state, expected in said) == ("warning", True), said
    monkeypatch.setattr(audit, "compared", lambda *_: [Compared("tsa.example", 1, None)])
    assert "extra" in lines()[0][1]
