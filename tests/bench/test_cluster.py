"""Tests of the benchmark of simulated clusters: every figure has its row, and misses are said."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

import pytest

from bench import cluster as module
from bench.cluster import ROWS, add_options, cluster, run, tabulate
from node.errors import NodeError


def options(*words: str) -> Namespace:
    parser = ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


def test_every_row_is_measured_and_every_phase_is_charged():
    known = [dict(found) for found in run(6, 1, ["traffic", "route", "death"], 45.0)]
    assert len(known) == 1 + 1 + 3 + 1
    assert {row.key for row in ROWS} - known[-1].keys() == {"members-memory"}
    phases = sum(known[-1][f"{phase}-spent"] for phase in ("join", "traffic", "route", "death"))
    assert known[-1]["spent"] == pytest.approx(phases)


def test_only_what_is_asked_for_is_measured_in_a_process_of_its_own(tmp_path, capsys):
    path = tmp_path / "found.json"
    cluster(options("--nodes", "4,5", "--only", "join", "--json", str(path)))
    shown = capsys.readouterr().out
    assert "5 nodes" in shown
    assert "mass join" in shown
    assert "30 % die" not in shown
    found = json.loads(path.read_text("utf-8"))["cluster"]
    assert found.keys() == {"4", "5"}
    assert found["4"]["join-seconds"] > 0


def test_what_was_found_before_a_process_ended_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(module, "_read", lambda _path: {"join-seconds": 1.0})
    with pytest.raises(NodeError, match="no phase"):
        module.apart(4, options("--only", "no"))
    assert module.apart(2, options("--only", "join")) == {"join-seconds": 1.0}
    assert "2 nodes: not measured to the end" in capsys.readouterr().err
    monkeypatch.setattr(module, "_read", lambda _path: {})
    with pytest.raises(NodeError, match="not measured to the end"):
        module.apart(2, options("--only", "join"))


def test_targets_are_judged_where_they_apply():
    found = {
        10: {"join-seconds": 99.0, "wall": 1.0},
        100: {"join-seconds": 30.0, "wall": 1.0},
        1000: {"join-seconds": 30.5, "wall": 1.0},
    }
    rows = {row[0]: row[1:] for row in tabulate(found).rows}
    assert rows["mass join, s"] == ["99.00", "30.00", "30.50", "<= 30: not met at 1,000"]
    assert rows["wall time of the run, s"][-1] == "<= 120: met"
    assert len(rows) == 2
    assert tabulate({10: found[10]}).rows[0][-1] == "<= 30"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--nodes", "many"], "--nodes must be numbers"),
        (["--nodes", "0"], "at least 1"),
        (["--only", "sleep"], "no phase 'sleep'"),
    ],
)
def test_a_wrong_option_is_refused(words, why):
    with pytest.raises(NodeError, match=why):
        cluster(options(*words))
