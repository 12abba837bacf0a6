"""Secret files as systemd hands them to a service: root's, and readable by its user through an ACL."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from countermark.model.errors import ConfigError
from countermark.wiring.access import ACL_MASK, ACL_OWNER, ACL_USER, ACL_VERSION, check_private, only_for

ACL_GROUP_OF_FILE, ACL_GROUP, ACL_OTHER = 0x04, 0x08, 0x20
NOBODY = 0xFFFFFFFF
UID, STRANGER = 2_001, 2_002


def acl(*entries: tuple[int, int, int]) -> bytes:
    return ACL_VERSION + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def credential(*more: tuple[int, int, int], uid: int = UID) -> bytes:
    """The ACL of a credential, with further entries."""
    return acl(
        (ACL_OWNER, 4, NOBODY), (ACL_USER, 4, uid), (ACL_GROUP_OF_FILE, 0, NOBODY), *more, (ACL_MASK, 4, NOBODY),
        (ACL_OTHER, 0, NOBODY),
    )  # fmt: skip


def test_an_acl_for_one_user_lets_in_nobody_else() -> None:
    """It is accepted for that user, and for no other."""
    assert only_for(credential(), UID)
    assert not only_for(credential(), STRANGER)


@pytest.mark.parametrize(
    "wrong",
    [
        credential((ACL_USER, 4, STRANGER)), credential((ACL_GROUP, 4, 100)), credential((ACL_OTHER, 4, NOBODY)),
        credential((ACL_GROUP_OF_FILE, 4, NOBODY)), credential()[:-1], credential()[4:], ACL_VERSION, b"",
        (3).to_bytes(4, "little") + credential()[4:],
    ],
    ids=["another user", "a group", "everybody", "the file's group", "cut", "no version", "empty", "none", "version 3"],
)  # fmt: skip
def test_any_other_entry_and_any_other_form_is_refused(wrong: bytes) -> None:
    """One more reader, or bytes that are no ACL of the known version, and the file counts as open to others."""
    assert not only_for(wrong, UID)


@pytest.mark.parametrize(("uid", "accepted"), [(os.geteuid(), True), (STRANGER, False)])
def test_a_credential_of_systemds_is_private(tmp_path: Path, uid: int, accepted: bool) -> None:
    """A file of root's whose mode shows the mask of such an ACL is read; for another user's it is refused."""
    path = tmp_path / "stripe"
    path.write_text("rk_test_x", "ascii")
    path.chmod(0o400)
    try:
        os.setxattr(path, "system.posix_acl_access", credential(uid=uid))
    except OSError as error:
        pytest.skip(f"this file system keeps no ACL: {error.strerror}")
    if path.stat().st_uid != 0:
        pytest.skip("only root makes files of root's")
    assert path.stat().st_mode & 0o777 == 0o440
    with path.open("rb") as file:
        if accepted:
            check_private(file.fileno(), "stripe")
        else:
            with pytest.raises(ConfigError, match="by others"):
                check_private(file.fileno(), "stripe")


@pytest.mark.parametrize("mode", [0o440, 0o640, 0o404, 0o620])
def test_a_mode_without_an_acl_means_what_it_says(tmp_path: Path, mode: int) -> None:
    """Readable by a group or by all is not private."""
    path = tmp_path / "stripe"
    path.touch()
    path.chmod(mode)
    with path.open("rb") as file, pytest.raises(ConfigError, match="by others"):
        check_private(file.fileno(), "stripe")
