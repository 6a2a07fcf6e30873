"""A short run of `scripts/churn`: attachments come and go, and nothing is left of them."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.churn import STEPS, churn, inventory, left_of
from tests.support.machines import YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.runtime import Runtime
from tests.support.waiting import eventually, steady

pytestmark = NEEDS_KERNEL

PARALLEL = 8
CYCLES = 12
QUARANTINE = 2
SOON = 60.0


def test_nothing_is_left_and_addresses_rest_before_they_are_given_again(
    make_yard: YardMaker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    yard = make_yard(1)
    yard.info.settings["MUSLIN_QUARANTINE"] = str(QUARANTINE)
    runtime = Runtime(yard.found(), tmp_path_factory.mktemp("cni"))
    with ExitStack() as stack:
        containers = [stack.enter_context(runtime.container()) for _ in range(PARALLEL)]
        warm = churn(runtime, containers, 1)
        before = steady(lambda: inventory(runtime), within=SOON, poll=0.5)
        churned = churn(runtime, containers, CYCLES)
        assert warm.failures == churned.failures == []
        assert len(churned.verbs["ADD"]) == len(churned.verbs["DEL"]) == PARALLEL * CYCLES
        assert all(len(each.steps) == len(STEPS) for each in churned.verbs["ADD"])
        reused = churned.soonest_reuse()
        assert reused is None or reused >= QUARANTINE

        def nothing_is_left() -> bool:
            left = left_of(runtime, before)
            assert not left
            return True

        eventually(nothing_is_left, within=SOON)
