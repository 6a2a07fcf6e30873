"""Real daemons are sent again all that they ever said, in every way. Nothing comes of it.

`scripts/replay` is the same for ten minutes of traffic, and prints a table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.labs import LabMaker
from tests.support.modified import modified
from tests.support.privileged import NEEDS_KERNEL
from tests.support.replay_lab import BATCH, Row, Scene, every_way, recorded
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone("netns")]

SECONDS = 20.0
REKEY = 6.0
REJECT = 60.0


def test_a_record_of_everything_is_worth_nothing(make_lab: LabMaker, tmp_path: Path) -> None:
    settings = modified(tmp_path, rekey_after=REKEY, reject_after=REJECT)
    rows: list[Row] = []
    with recorded(make_lab, SECONDS, settings=settings) as scene:
        assert all(len(seen) > 1000 for seen in scene.seen.values())
        assert sum(scene.initiations(name) for name in scene.seen) >= 2 * 3, "joins and rekeys"
        every_way(scene, 3 * REKEY, rows.append)
        judge(scene, rows)


def judge(scene: Scene, rows: list[Row]) -> None:
    for row in rows:
        assert not row.twice, row
        assert not row.changed, row
        if row.when == f"after a restart of {row.to}":
            # It has not seen these initiations in its present life: some get a response, and a
            # half-open keypair that nobody can confirm.
            assert row.answered <= scene.initiations(row.to), row
            assert row.sent - row.refused.total() <= scene.initiations(row.to), row
        else:
            assert row.nothing, row
    assert {row.order for row in rows} == {"in order", "reversed", "shuffled"}
    assert len({row.when for row in rows}) == 4


def test_without_a_replay_window_pods_get_packets_again(make_lab: LabMaker, tmp_path: Path) -> None:
    """What the test above counts would show it."""
    settings = modified(tmp_path, rekey_after=REJECT, reject_after=2 * REJECT, window=False)
    with recorded(make_lab, 3.0, settings=settings) as scene:
        assert scene.twice() == 0
        scene.send(scene.seen["node1"][-BATCH:], "node1", "itself")
        eventually(lambda: scene.twice() > BATCH / 10, within=SECONDS)
