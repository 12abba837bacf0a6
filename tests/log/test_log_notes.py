"""Signed notes and checkpoints: a foreign vector, round trips, and one refusal for each way to be wrong."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.log import (
    EMPTY_ROOT,
    Checkpoint,
    LogSigner,
    leaf_hash,
    open_checkpoint,
    open_note,
    parse_vkey,
    sign_checkpoint,
    vkey,
)
from countermark.model.errors import CountermarkError, SignatureError

ORIGIN = "countermark/acme/l0"
ROOT = leaf_hash(b"root")


def signer(name: str = ORIGIN, seed: int = 1) -> LogSigner:
    return LogSigner(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def signed(text: bytes, *signers: LogSigner) -> bytes:
    """A note over any text, so that wrong ones can carry a right signature."""
    lines = b"".join(
        f"— {one.name} ".encode() + base64.b64encode(one.key_id + one.sign(text)) + b"\n" for one in signers
    )
    return text + b"\n" + lines


LOG = signer()
NOTE = sign_checkpoint(LOG, 1234, ROOT)


def test_a_note_made_by_another_implementation_verifies() -> None:
    """The example of Go's note package: its verifier key parses, its signature verifies over its text."""
    key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = (
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert open_note(f"{text}\n{line}".encode(), [key]) == (text, frozenset({"PeterNeumann"}))
    parsed = parse_vkey(key)
    assert parsed.key_id.hex() == "c74f20a3"
    assert vkey(parsed.name, parsed.public) == key


def test_a_checkpoint_has_exactly_this_form() -> None:
    """Origin, size, root, an empty line and one signature line whose name is the origin."""
    lines = NOTE.decode("utf-8").split("\n")
    assert lines[:4] == [ORIGIN, "1234", base64.b64encode(ROOT).decode(), ""]
    assert lines[4].startswith(f"— {ORIGIN} ")
    assert lines[5:] == [""]
    assert open_checkpoint(NOTE, [LOG.vkey]) == Checkpoint(ORIGIN, 1234, ROOT)
    assert signed(Checkpoint(ORIGIN, 1234, ROOT).render(), LOG) == NOTE


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_round_trip(size: int, root: bytes) -> None:
    """What is signed opens to the same size and root."""
    assert open_checkpoint(sign_checkpoint(LOG, size, root), [LOG.vkey]) == Checkpoint(ORIGIN, size, root)


def test_extension_lines_are_kept() -> None:
    """C2SP allows further lines; they are signed and come back."""
    head = Checkpoint(ORIGIN, 7, ROOT, ("epoch 3", "an unknown line"))
    assert open_checkpoint(signed(head.render(), LOG), [LOG.vkey]) == head


def test_lines_of_unknown_keys_are_ignored() -> None:
    """A witness may add its line; only a known key's line counts, and each of those must verify."""
    witness = signer("witness.example/w1", 2)
    text = Checkpoint(ORIGIN, 1, ROOT).render()
    assert open_checkpoint(signed(text, witness, LOG), [LOG.vkey]).size == 1
    with pytest.raises(SignatureError, match="not signed by any known key"):
        open_checkpoint(signed(text, witness), [LOG.vkey])
    old_key = signer(ORIGIN, 3)
    assert open_checkpoint(signed(text, LOG), [old_key.vkey, LOG.vkey]).size == 1


def test_another_log_s_key_does_not_vouch() -> None:
    """A known key named otherwise than the origin does not make a head, though its signature verifies."""
    other = signer("countermark/acme/l1", 2)
    with pytest.raises(SignatureError, match="the log that it names"):
        open_checkpoint(signed(Checkpoint(ORIGIN, 1, ROOT).render(), other), [LOG.vkey, other.vkey])


def test_a_known_key_signs_once() -> None:
    """Two lines of one known key are refused: a head has one form."""
    with pytest.raises(SignatureError, match="two lines"):
        open_checkpoint(signed(Checkpoint(ORIGIN, 1, ROOT).render(), LOG, LOG), [LOG.vkey])


def test_every_flipped_byte_is_refused() -> None:
    """No single changed byte of a note leaves it valid."""
    for at in range(len(NOTE)):
        for bit in (1, 0x20, 0x80):
            bad = NOTE[:at] + bytes([NOTE[at] ^ bit]) + NOTE[at + 1 :]
            with pytest.raises(SignatureError):
                open_checkpoint(bad, [LOG.vkey])


def test_every_truncation_is_refused() -> None:
    """No prefix of a note is a note."""
    for end in range(len(NOTE)):
        with pytest.raises(SignatureError):
            open_checkpoint(NOTE[:end], [LOG.vkey])


B64 = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n01\n{B64}\n",
        f"{ORIGIN}\n+1\n{B64}\n",
        f"{ORIGIN}\n-1\n{B64}\n",
        f"{ORIGIN}\n1 \n{B64}\n",
        f"{ORIGIN}\n{2**63}\n{B64}\n",
        f"{ORIGIN}\n٣\n{B64}\n",
        f"{ORIGIN}\n1\n{B64[:-1]}\n",
        f"{ORIGIN}\n1\n{B64[:-2]}B=\n",
        f"{ORIGIN}\n1\n{base64.b64encode(ROOT[:31]).decode()}\n",
        f"{ORIGIN}\n1\n",
        f"{ORIGIN}\n",
        f"{ORIGIN}\n1\n{B64}\n\nx\n",
        f"{ORIGIN}\n1\n{B64}\nx\ty\n",
        f"{ORIGIN}\n1\n{B64}\n" + "x\n" * 17,
        f"{ORIGIN}\r\n1\n{B64}\n",
    ],
)
def test_a_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    """Signed by the right key, but not in the one form: refused."""
    with pytest.raises(SignatureError):
        open_checkpoint(signed(text.encode(), LOG), [LOG.vkey])


def test_limits_are_enforced() -> None:
    """A note has at most 64 signature lines and 64 KiB."""
    text = Checkpoint(ORIGIN, 1, ROOT).render()
    others = [signer(f"w{index}", 9) for index in range(64)]
    assert open_checkpoint(signed(text, LOG, *others[:63]), [LOG.vkey]).size == 1
    with pytest.raises(SignatureError, match="more than 64"):
        open_checkpoint(signed(text, LOG, *others), [LOG.vkey])
    with pytest.raises(SignatureError, match="longer than"):
        open_checkpoint(b"x" * 65_537, [LOG.vkey])


def test_a_signature_line_has_one_form() -> None:
    """A line with other base64, other white space, a hyphen for the dash or a short blob is refused."""
    text, _, line = NOTE.decode().partition("\n\n")
    blob = line.rstrip("\n").split(" ")[2]
    for bad in (
        f"- {ORIGIN} {blob}\n",
        f"— {ORIGIN}  {blob}\n",
        f"— {ORIGIN} {blob} \n",
        f"— {ORIGIN} {blob}\n\n",
        f"— {ORIGIN}\n",
        f"—  {blob}\n",
        f"— {ORIGIN} {base64.b64encode(LOG.key_id).decode()}\n",
        f"— {ORIGIN} {blob[:8]}\n",
        f"— a+b {blob}\n{line}",
        f"— a\u00a0b {blob}\n{line}",
        "",
    ):
        with pytest.raises(SignatureError):
            open_checkpoint(f"{text}\n\n{bad}".encode(), [LOG.vkey])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000+AQ==",
        LOG.vkey.upper(),
        LOG.vkey + "=",
        LOG.vkey.replace("countermark", "Countermark"),
        LOG.vkey.replace("+", " +", 1),
        "x" * 500,
        None,
    ],
)
def test_a_wrong_verifier_key_is_refused(text: object) -> None:
    """A verifier key with another name, ID, type or form raises."""
    with pytest.raises(SignatureError):
        parse_vkey(text)  # type: ignore[arg-type]


def test_a_verifier_key_of_another_type_is_refused() -> None:
    """A witness's key (type 4) is no log key."""
    encoded = base64.b64encode(b"\4" + bytes(32)).decode()
    with pytest.raises(SignatureError, match="not of type Ed25519"):
        parse_vkey(f"w+00000000+{encoded}")


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "x" * 201, "\ud800"])
def test_a_log_cannot_have_a_name_that_notes_cannot_carry(name: str) -> None:
    """Names with spaces, pluses or control characters are refused when the signer is made."""
    with pytest.raises(SignatureError):
        signer(name)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_foreign_exception_leaves(raw: bytes) -> None:
    """Whatever the bytes, opening raises our own error."""
    with pytest.raises(CountermarkError):
        open_checkpoint(raw, [LOG.vkey])
    with pytest.raises(CountermarkError):
        open_checkpoint(NOTE[:-50] + raw, [LOG.vkey])


def test_the_empty_log_has_a_head() -> None:
    """Size 0 with the empty root is a head like any other."""
    assert open_checkpoint(sign_checkpoint(LOG, 0, EMPTY_ROOT), [LOG.vkey]).root == EMPTY_ROOT
