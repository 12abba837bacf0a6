"""Go's sumdb and aics-tlog judge our trees: heads, tiles, inclusion and consistency, and refuse what was changed."""

from __future__ import annotations

import pytest
from publish.evidence import Evidence
from strangers.tools import HERE, ask, go_judge, venv
from strangers.trees import SIZES, fresh, of_pack, tampered

pytestmark = pytest.mark.slow


def test_go_accepts_our_trees_and_refuses_changed_ones(
    evidence: Evidence, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Trees of many sizes and a real deployment's pack: Go makes the very same proofs from our tiles."""
    judge = [str(go_judge(tmp_path_factory))]
    good = [*fresh("go"), of_pack(evidence.pack, evidence.signer)]
    assert ask(judge, good) == [[]] * len(good)
    bad = [*tampered(good[SIZES.index(513)]), *tampered(good[-1])]
    verdicts = ask(judge, bad)
    assert [at for at, verdict in enumerate(verdicts) if not verdict] == []
    assert len(verdicts) > 15


def test_aics_tlog_accepts_our_trees_and_refuses_changed_ones(
    evidence: Evidence, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another implementation of the C2SP texts, by other people in another language, comes to the same."""
    judge = [str(venv(tmp_path_factory, "aics-tlog==0.2.1", 12)), str(HERE / "judge_tlog.py")]
    good = [*fresh("aics")[:-2], of_pack(evidence.pack, evidence.signer)]
    assert ask(judge, good) == [[]] * len(good)
    bad = [*tampered(good[SIZES.index(513)]), *tampered(good[-1])]
    assert [at for at, verdict in enumerate(ask(judge, bad)) if not verdict] == []
