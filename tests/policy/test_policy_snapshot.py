"""What a snapshot keeps of the evidence about the log itself: without it the gate and the verifier would differ."""

from __future__ import annotations

import orjson

from countermark.policy import DictKeys, State, Witnessed
from countermark.policy.epochs import Closed


def test_a_snapshot_holds_witnesses_rotation_and_epochs() -> None:
    """How far witnesses saw the log, which keys sign it and where epochs end come back from the bytes of a snapshot."""
    before, after = (State(DictKeys(), lambda digest: None) for _ in range(2))  # type: ignore[arg-type,return-value]
    before.witnessed, before.epoch = Witnessed(5, 7), Closed(2, 4, 9)
    before.rotation, before.log_key = ("countermark/a/l0+old", "countermark/a/l0+new", 3), "countermark/a/l0+new"
    after.load(orjson.loads(orjson.dumps(before.dump())))
    assert (after.witnessed, after.epoch, after.rotation) == (before.witnessed, before.epoch, before.rotation)
    assert after.log_keys == before.log_keys == ("countermark/a/l0+new", "countermark/a/l0+old")
