# pragma version 0.4.3
# pragma evm-version cancun
# SPDX-License-Identifier: Apache-2.0
"""
@title Countermark Anchor
@notice Heads of append-only logs, one history for each origin. Only the owner writes. A head must follow the last one
        in sequence, name its root and not be smaller, so that a second history of the same log cannot be written here.
        What a root contains is not judged: whether the larger log extends the smaller one is for its readers to check.
"""

event Anchored:
    origin: indexed(bytes32)
    sequence: indexed(uint64)
    size: uint64
    root: bytes32
    previous: bytes32


event HandoverOffered:
    owner: indexed(address)
    successor: indexed(address)


event HandedOver:
    previous: indexed(address)
    owner: indexed(address)


struct Head:
    sequence: uint64
    size: uint64
    root: bytes32


owner: public(address)
successor: public(address)
heads: public(HashMap[bytes32, Head])


@deploy
def __init__():
    self.owner = msg.sender
    log HandedOver(previous=empty(address), owner=msg.sender)


@external
def anchor(origin: bytes32, sequence: uint64, size: uint64, root: bytes32, previous: bytes32):
    """
    @param origin Keccak-256 of the log's origin, the first line of its checkpoints
    @param sequence One more than that of the origin's last head; 1 for the first
    @param size How many records the log has, at least one
    @param root Root of the RFC 6962 tree of these records
    @param previous Root of the origin's last head; zero for the first
    """
    assert msg.sender == self.owner, "not the owner"
    last: Head = self.heads[origin]
    assert sequence == last.sequence + 1, "not the next"
    assert previous == last.root, "a fork"
    assert size >= last.size and size > 0, "shrunk"
    assert root != empty(bytes32), "no root"
    assert size > last.size or root == last.root, "same size, other root"
    self.heads[origin] = Head(sequence=sequence, size=size, root=root)
    log Anchored(origin=origin, sequence=sequence, size=size, root=root, previous=previous)


@external
def offer(successor: address):
    """
    @notice The first step of a hand-over; the zero address withdraws it
    """
    assert msg.sender == self.owner, "not the owner"
    self.successor = successor
    log HandoverOffered(owner=msg.sender, successor=successor)


@external
def accept():
    """
    @notice The second step: whoever was offered the contract takes it
    """
    assert msg.sender == self.successor, "not the successor"
    log HandedOver(previous=self.owner, owner=msg.sender)
    self.owner = msg.sender
    self.successor = empty(address)
