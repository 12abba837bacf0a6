"""Witness policies: the strict reader, and quorums against a naive model."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.log import (
    Cosigner,
    LogSigner,
    attainable,
    cosigned_by,
    leaf_hash,
    operators,
    own_witnesses,
    parse_policy,
    quorum,
    sign_checkpoint,
    with_lines,
)
from countermark.model.errors import PolicyError


def key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


LOG = LogSigner("countermark/acme/l0", key(1))
COSIGNERS = [Cosigner(f"w{n}", key(100 + n)) for n in range(66)]
V = [one.vkey for one in COSIGNERS]
LATTICE = Cosigner("pq", MLDSA44PrivateKey.from_seed_bytes(bytes(32)))
EXAMPLE = (
    f"# who vouches for us\nlog {LOG.vkey} https://log.example/\n\n"
    f"witness X/1 {V[1]} https://x.example/one\nwitness X/2 {V[2]}\n \twitness\tX/3  {V[3]} \n"
    f"group X-witnesses 2 X/1 X/2 X/3\n  # the other operator\n"
    f"witness Y/1 {V[4]}\nwitness Y/2 {LATTICE.vkey}\ngroup Y-witnesses any Y/1 Y/2\n"
    "group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
)


def test_the_specifications_own_example_reads_and_decides() -> None:
    """Two of three of one operator, and one of the other: exactly those sets are enough."""
    policy = parse_policy(EXAMPLE)
    assert [one.vkey for one in policy.logs] == [LOG.vkey]
    assert policy.witnesses[0].url == "https://x.example/one"
    assert policy.witnesses[1].url == ""
    assert operators(policy) == {"X/1": "X", "X/2": "X", "X/3": "X", "Y/1": "Y", "Y/2": "Y"}
    assert quorum(policy, {"X/1", "X/3", "Y/2"}, "acme")
    assert not quorum(policy, {"X/1", "X/2", "X/3"}, "acme")
    assert not quorum(policy, {"X/1", "Y/1", "Y/2"}, "acme")
    assert not quorum(policy, {"X-and-Y", "unknown"}, "acme")


def test_a_witness_of_the_deployment_itself_never_counts() -> None:
    """An operator named like the deployment, in any case, is its own: nothing it cosigns brings a quorum nearer."""
    text = f"witness Acme/w {V[1]}\nwitness bank {V[2]}\ngroup g any Acme/w bank\nquorum g\n"
    policy = parse_policy(text)
    assert own_witnesses(policy, "acme") == {"Acme/w"}
    assert not quorum(policy, {"Acme/w"}, "acme")
    assert quorum(policy, {"Acme/w"}, "other")
    assert quorum(policy, {"bank"}, "acme")
    both = parse_policy(text.replace("any", "all"))
    assert not quorum(both, {"Acme/w", "bank"}, "acme")
    assert not attainable(both, "acme")
    assert attainable(both, "other")


def test_no_witness_is_a_policy_too() -> None:
    """`quorum none` asks for nothing, and says so."""
    assert quorum(parse_policy("quorum none\n"), (), "acme")


def test_names_are_octets() -> None:
    """A name that only looks like another is another: no folding, no normalising."""
    policy = parse_policy(f"witness K {V[1]}\nwitness \u212a {V[2]}\nquorum \u212a\n")
    assert not quorum(policy, {"K"}, "acme")
    assert quorum(policy, {"\u212a"}, "acme")


def test_cosignatures_are_found_under_the_policys_names() -> None:
    """Who cosigned is told by the key; the policy's own name for it is what quorums speak of."""
    policy = parse_policy(EXAMPLE)
    note = sign_checkpoint(LOG, 7, leaf_hash(b"x"))
    text = note.partition(b"\n\n")[0].decode() + "\n"
    signed = with_lines(note, [COSIGNERS[2].cosign(text, 9), LATTICE.cosign(text, 10), COSIGNERS[9].cosign(text, 11)])
    assert {name: one.at_s for name, one in cosigned_by(policy, signed).items()} == {"X/2": 9, "Y/2": 10}


def test_a_line_that_says_no_time_vouches_for_no_newest_head() -> None:
    """An ML-DSA-44 cosignature with time 0 is only about consistency, so it does not count."""
    policy = parse_policy(f"witness Y {LATTICE.vkey}\nquorum Y\n")
    note = sign_checkpoint(LOG, 7, leaf_hash(b"x"))
    text = note.partition(b"\n\n")[0].decode() + "\n"
    assert cosigned_by(policy, with_lines(note, [LATTICE.cosign(text, 0)])) == {}


def named(count: int) -> str:
    return "".join(f"witness w{n} {V[n]}\n" for n in range(count))


def test_thirty_two_of_each_and_more_are_read() -> None:
    """The specification recommends room for 32 logs, witnesses and groups; there is room for 64 and no more."""
    logs = "".join(f"log {LogSigner(f'l{n}', key(500 + n)).vkey}\n" for n in range(64))
    groups = "".join(f"group g{n} any {'w' if n == 0 else 'g'}{max(0, n - 1)}\n" for n in range(64))
    policy = parse_policy(logs + named(64) + groups + "quorum g63\n")
    assert (len(policy.logs), len(policy.witnesses), len(policy.groups)) == (64, 64, 64)
    assert quorum(policy, {"w0"}, "acme")
    assert not quorum(policy, {"w1"}, "acme")
    for more in (f"log {LogSigner('l64', key(600)).vkey}\n", f"witness w64 {V[64]}\n", "group g64 any w1\n"):
        with pytest.raises(PolicyError, match="more than 64"):
            parse_policy(logs + named(64) + groups + more + "quorum g63\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum none",
        "quorum none\nquorum none\n",
        "# nothing\n",
        "quorum w0\n" + named(1),
        "quorum\n",
        "quorum none none\n",
        "Quorum none\n",
        "quorum None\n",
        "quorum none # why\n",
        "quorum none\r\n",
        "quorum none\x0b\n",
        "quorum none\x00\n",
        "quorum\u00a0none\n",
        "include other\nquorum none\n",
        "#\x7f\nquorum none\n",
        f"log\nquorum none\n{named(0)}",
        f"log {LOG.vkey} a b\nquorum none\n",
        f"log {LOG.vkey}\nlog {LOG.vkey}\nquorum none\n",
        f"log {LOG.vkey}\nlog {LogSigner('other', key(1)).vkey}\nquorum none\n",
        f"log {V[1]}\nquorum none\n",
        f"witness w {LOG.vkey}\nquorum w\n",
        f"witness {V[1]}\nquorum none\n",
        f"witness w {V[1]} u v\nquorum w\n",
        f"witness w {V[1]}\nwitness w {V[2]}\nquorum w\n",
        f"witness w {V[1]}\nwitness v {V[1]}\nquorum w\n",
        f"witness w {V[1]}\nwitness v {Cosigner('v', key(101)).vkey}\nquorum w\n",
        f"witness none {V[1]}\nquorum none\n",
        f"witness /w {V[1]}\nquorum none\n",
        f"witness {'w' * 201} {V[1]}\nquorum none\n",
        f"witness w {V[1]} {'h' * 2001}\nquorum none\n",
        f"witness w {V[1][:-1]}\nquorum none\n",
        named(2) + "group g any\nquorum g\n",
        named(2) + "group g w0 w1\nquorum g\n",
        named(2) + "group g 0 w0 w1\nquorum g\n",
        named(2) + "group g 01 w0 w1\nquorum g\n",
        named(2) + "group g +1 w0 w1\nquorum g\n",
        named(2) + "group g 3 w0 w1\nquorum g\n",
        named(2) + "group g \u0661 w0 w1\nquorum g\n",
        named(2) + "group g All w0 w1\nquorum g\n",
        named(2) + "group g any w0 w0\nquorum g\n",
        named(2) + "group g any w0 g\nquorum g\n",
        named(2) + "group g any none\nquorum g\n",
        named(2) + "group none any w0\nquorum w0\n",
        named(2) + "group w0 any w1\nquorum w0\n",
        named(2) + "group g any w0\ngroup h any w0\nquorum g\n",
        named(2) + "group g any w2\nquorum g\n",
        "quorum none\n" + "#" * 262_144 + "\n",
        "#\ud800\nquorum none\n",
    ],
)
def test_what_is_not_a_policy_is_refused(text: str) -> None:
    """Anything but a well-formed policy is refused with the one code; nothing is guessed or skipped."""
    with pytest.raises(PolicyError) as refused:
        parse_policy(text)
    assert refused.value.code == "bad_witness_policy"


# A rule as a tree: a witness by number, or (needed, parts). The model knows no names and no order of lines.
TREES = st.recursive(
    st.integers(0, 5),
    lambda parts: st.lists(parts, min_size=1, max_size=4).flatmap(
        lambda some: st.tuples(st.integers(1, len(some)), st.just(some))
    ),
    max_leaves=6,
)


def leaves(tree: object) -> list[int]:
    return [tree] if isinstance(tree, int) else [n for part in tree[1] for n in leaves(part)]  # type: ignore[index]


def satisfied(tree: object, present: set[int]) -> bool:
    if isinstance(tree, int):
        return tree in present
    needed, parts = tree  # type: ignore[misc]
    return sum(satisfied(part, present) for part in parts) >= needed


def written(tree: object, lines: list[str]) -> str:
    if isinstance(tree, int):
        return f"w{tree}"
    needed, parts = tree  # type: ignore[misc]
    members = [written(part, lines) for part in parts]
    word = "all" if needed == len(parts) and len(lines) % 2 else "any" if needed == 1 and len(lines) % 3 else needed
    lines.append(f"group g{len(lines)} {word} {' '.join(members)}\n")
    return f"g{len(lines) - 1}"


@settings(max_examples=60, derandomize=True, deadline=None)
@given(TREES.filter(lambda tree: len(set(leaves(tree))) == len(leaves(tree))), st.sets(st.integers(0, 5)))
def test_quorums_are_what_a_naive_model_says(tree: object, present: set[int]) -> None:
    """Nested thresholds come out as counting by hand does, also when one of the witnesses is the deployment's own."""
    lines: list[str] = []
    top = written(tree, lines)
    policy = parse_policy(named(6) + "".join(lines) + f"quorum {top}\n")
    names = {f"w{n}" for n in present}
    assert quorum(policy, names, "acme") == satisfied(tree, present)
    assert quorum(policy, names, "W3") == satisfied(tree, present - {3})


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from([*EXAMPLE.split(" "), "\n", " ", "quorum", "none", "\x00", "é"]), max_size=30))
def test_whatever_is_read_only_our_error_comes_out(words: list[str]) -> None:
    """No text makes the reader raise anything but the one error."""
    try:
        parse_policy(" ".join(words))
    except PolicyError:
        pass
