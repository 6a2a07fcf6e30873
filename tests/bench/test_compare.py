"""Tests of the comparison's options, and of showing a run again."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

import pytest

from bench.compare import add_options, chosen, compare, plan_of, read
from bench.report import document, machine
from bench.topology import Underlay
from node.errors import NodeError
from tests.bench.samples import samples


def options(*argv: str) -> Namespace:
    parser = ArgumentParser()
    add_options(parser)
    return parser.parse_args(argv)


def test_by_default_all_take_part_and_the_wire_runs_a_part():
    plan = plan_of(options())
    assert [each.name for each in plan.contestants] == [
        "none", "vxlan", "wireguard-go", "nebula", "tinc", "muslin",
    ]  # fmt: skip
    assert (plan.rounds, plan.seconds) == (5, 2)
    assert [each.name for each in plan.workloads[Underlay.WIRE]] == ["tcp1", "udp64", "rtt"]
    assert len(plan.workloads[Underlay.VETH]) == 10


def test_a_whole_run_takes_less_than_half_an_hour():
    assert plan_of(options()).cost() < 30 * 60


def test_workloads_that_are_named_run_on_every_underlay():
    plan = plan_of(options("--workloads", "tcp8", "--only", "muslin,none"))
    assert [each.name for each in plan.contestants] == ["none", "muslin"]
    assert [w.name for w in plan.workloads[Underlay.WIRE]] == ["tcp8"]
    assert list(plan_of(options("--underlay", "wire")).workloads) == [Underlay.WIRE]


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(NodeError, match="there is no contestant 'calico'") as raised:
        chosen("none,calico", ["none", "vxlan"], "contestant")
    assert raised.value.fix == "choose from none, vxlan"


@pytest.mark.parametrize("argv", [["--rounds", "0"], ["--seconds", "0"]])
def test_less_than_one_is_refused(argv):
    with pytest.raises(NodeError, match="at least 1"):
        plan_of(options(*argv))


@pytest.fixture
def stored(tmp_path):
    contestants = {
        name: {"title": name, "version": "1", "mtu": 1500, "encrypted": name == "muslin"}
        for name in ("none", "vxlan", "muslin")
    }
    path = tmp_path / "run.json"
    path.write_text(
        json.dumps(document(samples(), on=machine(), seconds=2, contestants=contestants))
    )
    return path


def test_a_stored_run_is_shown_again_with_its_picture(stored, capsys):
    drawn = stored.with_suffix(".svg")
    compare(options("--from", str(stored), "--markdown", "--picture", str(drawn)))
    said = capsys.readouterr().out
    assert "medians of 3 interleaved rounds, 2 s per measurement." in said
    assert "| TCP, 1 stream, Gbit/s | 12.00 (10.00 to 14.00) |" in said
    assert "none: 1, MTU 1500, not encrypted; " in said
    assert drawn.read_text().startswith("<svg ")
    assert "2 s per measurement; not encrypted: none, vxlan<" in drawn.read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}'])
def test_another_file_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(NodeError, match=r"other\.json"):
        read(path)


def test_a_missing_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(NodeError, match="no such file"):
        read(tmp_path / "nothing.json")


def test_the_list_names_everything(capsys):
    compare(options("--list"))
    said = capsys.readouterr().out
    assert "wireguard-go" in said
    assert "MTU 1420, encrypted" in said
    assert "udp1300" in said
