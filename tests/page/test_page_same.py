"""Two exports of one journal are the same bytes, also the members for people."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from page_packs import FOR_PEOPLE, the_pack

from countermark.audit import export_pack


def exported(path: Path) -> bytes:
    from audit_day import the_day

    day = the_day()
    store = day.store
    try:
        export_pack(path, store, day.signer, deployment=day.made.deployment, unseal=day.unseal(store))
    finally:
        store.close()
    return path.read_bytes()


def test_two_exports_are_the_same_bytes(tmp_path: Path) -> None:
    """No clock, no locale, no chance."""
    assert exported(tmp_path / "a.zip") == the_pack().raw
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert set(FOR_PEOPLE) <= set(archive.namelist())
