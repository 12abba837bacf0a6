"""The systemd units of deploy/: accepted by systemd itself, hardened, and what the deployment guide says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted(path.name for path in DEPLOY.iterdir() if path.suffix in (".service", ".timer"))
# Programs and users of the target machine that are not here.
PROGRAMS = re.compile(r"(?m)^(ExecStart=)(/opt/\S+)")
USERS = re.compile(r"(?m)^(User|Group)=.*$")


def unit(name: str) -> dict[str, list[str]]:
    """The keys of a unit's [Service] section, each with its values."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in (DEPLOY / name).read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say: no unknown key, no bad value."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs debian: systemd")
    for path in DEPLOY.iterdir():
        text = PROGRAMS.sub(r"\1/bin/true", path.read_text("utf-8"))
        (tmp_path / path.name).write_text(USERS.sub(r"\1=root", text), "utf-8")
    instance = name.replace("@", "@treasury")
    (tmp_path / name).rename(tmp_path / instance)
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / instance)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    about = [line for line in (done.stdout + done.stderr).splitlines() if "countermark" in line or "agent@" in line]
    assert (done.returncode, about) == (0, [])


def test_gate_and_agents_are_different_users_and_neither_is_root() -> None:
    """Every service names its user; the agent's is made of its name and never the gate's."""
    users = {name: unit(name)["User"] for name in UNITS if name.endswith(".service")}
    assert users == {
        "agent@.service": ["agent-%i"],
        "countermark-backup.service": ["countermark"],
        "countermark.service": ["countermark"],
    }


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".service")])
def test_services_gain_nothing_and_write_only_their_own(name: str) -> None:
    """No new privileges, no capabilities, a read-only system, private modes."""
    found = unit(name)
    for key, value in (
        ("NoNewPrivileges", "yes"), ("CapabilityBoundingSet", ""), ("ProtectSystem", "strict"), ("UMask", "0077"),
        ("ProtectHome", "yes"), ("RestrictSUIDSGID", "yes"),
    ):  # fmt: skip
        assert found[key] == [value], key
    assert found["ReadWritePaths"]


def test_an_agent_reaches_the_gates_port_and_no_other_place() -> None:
    """All addresses are denied but this machine's; what the gate holds is not even there."""
    found = unit("agent@.service")
    assert (found["IPAddressDeny"], found["IPAddressAllow"]) == (["any"], ["localhost"])
    assert {"/etc/countermark", "/var/lib/countermark"} <= set(found["InaccessiblePaths"][0].split())
    assert not any("stripe" in value for value in found["LoadCredential"])


def test_the_gate_leaves_no_core_dump_with_its_credentials() -> None:
    """LimitCORE is 0 and the credential comes through LoadCredential, never through the environment."""
    found = unit("countermark.service")
    assert found["LimitCORE"] == ["0"]
    assert not any(re.search("key|secret|token", value, re.IGNORECASE) for value in found["Environment"])


def test_the_guide_names_every_file() -> None:
    """docs/deploying.md speaks of each file in deploy/."""
    guide = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    assert [path.name for path in DEPLOY.iterdir() if path.name not in guide] == []
