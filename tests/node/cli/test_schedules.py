"""`muslin sim --random`: schedules by chance, and the command that brings a failed one back."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from overlay.ipam.allocator import Allocator

FEW = ("--only", "add-pod,remove-pod")


@pytest.fixture
def broken(monkeypatch) -> None:
    """Addresses do not rest: some schedule finds that."""
    monkeypatch.setattr(Allocator, "_lay_to_rest", lambda self, resting: None)


def test_schedules_are_run_and_counted(muslin):
    ran = muslin("sim", "--random", "--seed", "5", "--count", "3")
    assert (ran.code, ran.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert (rows["schedules"], rows["breaches"]) == ("3, 0 failed", "none")


def test_the_steps_of_a_schedule_are_shown_on_request(muslin):
    ran = muslin("sim", "--random", "--count", "1", "--verbose", "--only", "add-pod,crash")
    assert re.search(r"^ +\d+\.\d{3} add-pod ", ran.out, re.MULTILINE)
    assert "all faults end" in ran.out


@pytest.mark.usefixtures("broken")
def test_a_failure_prints_the_one_command_that_replays_it(muslin):
    ran = muslin("sim", "--random", "--count", "20", *FEW)
    assert ran.code == 1
    assert "quarantine-kept" in ran.out
    replay = re.search(r"^  replay: muslin (sim .*)$", ran.out, re.MULTILINE)
    assert replay
    assert ran.err.endswith(f": replay it with muslin {replay[1]}\n")
    assert re.match(r"muslin: \d+ of 20 schedules failed: seed \d+: ", ran.err)
    again = muslin(*shlex.split(replay[1]))
    assert again.code == 1
    assert f"  replay: muslin {replay[1]}\n" in again.out
    assert "schedules   1, 1 failed" in again.out


@pytest.mark.usefixtures("broken")
def test_programs_get_the_failures_as_objects(muslin):
    ran = muslin("sim", "--random", "--count", "20", *FEW, "-o", "json")
    answer = json.loads(ran.out)
    assert (ran.code, answer["count"]) == (1, 20)
    first = answer["failed"][0]
    assert first["broken"] == ["quarantine-kept"]
    assert first["replay"].startswith(f"muslin sim --random --seed {first['seed']} --count 1 ")
    assert "count: 2\n" in muslin("sim", "--random", "--count", "2", "-o", "yaml").out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--random", "--only", "add-pod,fly"), "no step fly, steps are join, "),
        (("--random", "--count", "0"), "0 is not in the range"),
        (("--random", "--nodes", "3"), "--nodes needs a scenario"),
        (("--random", "x.toml"), "give it a SCENARIO.toml, or --random"),
        (("x.toml", "--jobs", "2"), "--jobs needs --random"),
        ((), "give it a SCENARIO.toml, or --random"),
    ],
)
def test_wrong_usage_is_wrong_usage(muslin, words, why):
    ran = muslin("sim", *words)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
