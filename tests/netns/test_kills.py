"""A short run of `scripts/kills`: killed daemons while pods come and go, and nothing is wrong."""

from __future__ import annotations

import pytest

from tests.support.kills import kills, same_node_lost
from tests.support.labs import LabMaker
from tests.support.privileged import NEEDS_KERNEL

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone]

KILLS = 8
SECONDS = 12.0


def test_after_random_kills_every_table_is_right_and_nothing_is_lost_or_left(
    make_lab: LabMaker,
) -> None:
    outcome = kills(make_lab, nodes=3, count=KILLS, seconds=SECONDS, seed=6, pace=0.3)
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert outcome.kills == KILLS
    assert outcome.figures["made"] > KILLS // 2
    assert outcome.figures["removed"]
    assert outcome.figures["refused"] + outcome.figures["cut off"]
    assert same_node_lost(outcome) == 0
    assert all(one.sent > SECONDS / 2 / 0.1 for one in outcome.same)
