"""`muslin sim`: scenarios from files, answers for people and programs, files, replay."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

TEXT = """
title = "A death in a small cluster"
until = 12.0
seed = 5
[cluster]
nodes = 4
[[event]]
at = 4.0
do = "pod-add"
nodes = "all"
[[expect]]
event = "pod-add"
within = 5.0
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """A scenario that succeeds."""
    file = tmp_path / "small.toml"
    file.write_text(TEXT)
    return file


def test_a_run_ends_with_a_table_and_what_it_cost(muslin, scenario):
    ran = muslin("sim", str(scenario))
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "A death in a small cluster: 4 nodes, seed 5"
    assert lines[2].split() == ["EVENT", "AT", "TIMES", "NODES", "P50", "P99", "MAX", "MISSING"]
    assert lines[4].split()[:4] == ["pod-add", "4.0", "1", "4"]
    words = {line.split("   ")[0].strip() for line in lines[6:]}
    assert {"steady", "peak", "false deaths", "invariants", "agreement", "trace"} <= words


def test_the_answer_for_programs_names_the_run_and_the_same_run_is_the_same(muslin, scenario):
    first, second = (json.loads(muslin("sim", str(scenario), "-o", "json").out) for _ in range(2))
    assert first.pop("real") >= 0
    second.pop("real")
    assert first == second
    assert (first["seed"], first["nodes"], first["failures"]) == (5, 4, [])
    other = json.loads(muslin("sim", str(scenario), "-o", "json", "--seed", "6").out)
    assert other["fingerprint"] != first["fingerprint"]


def test_options_win_over_the_file_and_are_part_of_the_replay(muslin, scenario):
    ran = muslin("sim", str(scenario), "--nodes", "6", "--seed", "9", "--until", "6", "-o", "json")
    answer = json.loads(ran.out)
    assert (answer["nodes"], answer["seed"], answer["now"]) == (6, 9, 6.0)
    again = shlex.split(answer["replay"])
    assert again[:2] == ["muslin", "sim"]
    repeated = json.loads(muslin(*again[1:], "-o", "json").out)
    assert repeated["fingerprint"] == answer["fingerprint"]


def test_yaml_is_for_programs_too(muslin, scenario):
    assert "seed: 5\n" in muslin("sim", str(scenario), "-o", "yaml").out


def test_an_expectation_that_is_missed_fails_with_the_command_that_replays_it(muslin, scenario):
    scenario.write_text(TEXT.replace("within = 5.0", "within = 0.0"))
    ran = muslin("sim", str(scenario), "--nodes", "5")
    assert ran.code == 1
    assert "pod-add: max is" in ran.err
    assert f"replay it with muslin sim {scenario} --seed 5 --nodes 5" in ran.err
    assert "pod-add" in ran.out  # the table is there all the same


def test_files_are_written_as_they_were_asked_for(muslin, scenario, tmp_path):
    trace, diagram, plot = tmp_path / "t.jsonl", tmp_path / "d.md", tmp_path / "p.svg"
    files = ["--trace", str(trace), "--mermaid", str(diagram), "--plot", str(plot)]
    ran = muslin("sim", str(scenario), *files, "--window", "3.9", "4.5")
    assert ran.code == 0
    entries = [json.loads(line) for line in trace.read_text().splitlines()]
    assert {"datagram", "machine.started"} <= {entry["event"] for entry in entries}
    assert f"{len(entries)} entries" in ran.out
    text = diagram.read_text()
    assert text.startswith("```mermaid\nsequenceDiagram")
    assert ": 4.0" in text
    assert ": 2." not in text
    assert "A death in a small cluster" in plot.read_text()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("title = 3", "title: must be text"),
        (TEXT + '[[event]]\nat = 1.0\ndo = "dance"', "event[2].do: must be one of join"),
        (
            TEXT + '[[event]]\nat = 1.0\ndo = "crash"\nnodes = "node77"',
            "no node and no group node77",
        ),
        ("title = ", "not TOML"),
    ],
)
def test_a_scenario_that_is_wrong_is_refused_in_one_line(muslin, scenario, text, why):
    scenario.write_text(text)
    ran = muslin("sim", str(scenario))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"muslin: cannot simulate {scenario}: ")
    assert why in ran.err


def test_files_that_cannot_be_read_or_written_are_named(muslin, scenario, tmp_path):
    assert "no such file" in muslin("sim", str(tmp_path / "none.toml")).err
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "is not text" in muslin("sim", str(tmp_path / "binary.toml")).err
    ran = muslin("sim", str(scenario), "--trace", str(tmp_path / "no" / "folder"))
    assert ran.code == 1
    assert "cannot write what was asked for" in ran.err
    assert "neither .svg nor .png" in muslin("sim", str(scenario), "--plot", "x.gif").err


def test_too_few_nodes_for_the_seeds_are_refused_in_words(muslin, scenario):
    scenario.write_text(TEXT.replace("[cluster]", "[cluster]\nseeds = 3"))
    ran = muslin("sim", str(scenario), "--nodes", "2")
    assert "seeds: must be 1 to the number of nodes, 2, not 3" in ran.err


def test_wrong_usage_is_wrong_usage(muslin, scenario):
    assert muslin("sim").code == 2
    assert muslin("sim", str(scenario), "--nodes", "0").code == 2
    assert muslin("sim", str(scenario), "--until", "nan").code == 2
    assert "needs --mermaid" in muslin("sim", str(scenario), "--window", "1", "2").err
    backwards = ["--mermaid", "x.md", "--window", "2", "1"]
    assert "begins before it ends" in muslin("sim", str(scenario), *backwards).err


def test_what_cannot_be_written_is_refused_before_anything_runs(muslin, scenario, tmp_path):
    for files in (["--plot", "x.gif"], ["--trace", str(tmp_path / "no" / "folder")]):
        ran = muslin("sim", str(scenario), *files)
        assert (ran.code, ran.out) == (1, "")
        assert "cannot write what was asked for" in ran.err


def test_the_table_is_there_even_if_a_file_could_not_be_written_after_all(
    muslin, scenario, tmp_path, monkeypatch
):
    converter = tmp_path / "rsvg-convert"
    converter.write_text("#!/bin/sh\necho no space >&2\nexit 1\n")
    converter.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = muslin("sim", str(scenario), "--plot", str(tmp_path / "x.png"))
    assert ran.code == 1
    assert "no space" in ran.err
    assert "pod-add" in ran.out
