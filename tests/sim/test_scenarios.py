"""Proof: every scenario that is shipped is one, keeps its promises, and explains itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlay.sim.play import Play
from overlay.sim.scenario import parse

FOLDER = Path(__file__).resolve().parents[2] / "scenarios"
SHIPPED = sorted(FOLDER.glob("*.toml"))


def test_there_are_scenarios():
    assert {
        "join",
        "partition",
        "mass-death",
        "slow-nodes",
        "lossy",
        "clone",
        "churn",
        "wan",
        "upgrade",
    } <= {file.stem for file in SHIPPED}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_scenario_succeeds(file):
    scenario = parse(file.read_text())
    outcome = Play(scenario).run()
    assert outcome.failures(scenario.expect) == []
    assert outcome.checks > 50


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_scenario_explains_itself(file):
    text = file.read_text()
    assert text.startswith("# ")
    assert sum(line.startswith("#") for line in text.splitlines()) >= 4
    assert parse(text).expect
