"""Real daemons that replace their keys every 2 s, both ends at once, under load.

`scripts/rekey` is the same for minutes, with and without rekeys, and prints a table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.labs import LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.rekey_lab import EVERY, Load, under_load

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone("netns")]

SECONDS = 20.0


@pytest.mark.parametrize("lanes", [1, 2])
def test_rekeys_under_load_lose_nothing_and_repeat_no_nonce(
    make_lab: LabMaker, tmp_path: Path, lanes: int
) -> None:
    load = under_load(make_lab, tmp_path, seconds=SECONDS, lanes=lanes, loss=False)
    sound(load)
    assert load.missing == 0


def test_with_one_frame_in_twenty_lost_rekeys_lose_no_more_and_repeat_no_nonce(
    make_lab: LabMaker, tmp_path: Path
) -> None:
    load = under_load(make_lab, tmp_path, seconds=SECONDS, loss=True)
    sound(load)
    # Runs of frames are lost whole, and a packet of three segments is lost with any of them.
    assert 0.02 < load.missing / load.sent < 0.2
    assert not load.drops["no_session"]


def sound(load: Load) -> None:
    assert load.sent > SECONDS * 100
    assert load.twice == 0
    assert load.nonces_twice == 0
    assert not load.drops["bad_tag"]
    assert load.bursts > load.sent / 2
    assert load.keys >= 2 * 0.5 * SECONDS / EVERY
