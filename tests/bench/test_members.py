"""Tests of the benchmark of members: what it measures did happen."""

from __future__ import annotations

from argparse import ArgumentParser

import pytest

from bench.members import (
    PODS,
    Cost,
    Founded,
    add_options,
    learn,
    measure,
    members,
    memory_by_module,
    packed,
    tabulate,
)
from node.errors import NodeError
from overlay.catalog.reader import Reader
from overlay.config import Limits


@pytest.fixture(scope="module")
def founded() -> Founded:
    return Founded(20)


def test_the_engine_knows_all_members_afterwards(founded):
    engine = founded.engine(Reader(founded.cluster, Limits()))
    learn(engine.parts, packed([*founded.records(20, 1), *founded.deeds(20)]))
    snapshot = engine.snapshot(1.0)
    assert len(snapshot.nodes) == 21
    assert len(snapshot.routes) == 2 * 21
    assert len(snapshot.pods) == 20 * PODS


def test_what_is_not_taken_over_is_an_error_and_not_a_good_figure(founded):
    engine = founded.engine(Reader(founded.cluster, Limits()))
    messages = packed(founded.records(20, 1))
    learn(engine.parts, messages)
    with pytest.raises(NodeError, match="refused"):
        learn(engine.parts, messages)


def test_all_is_measured(founded):
    cost = measure(founded, 20)
    assert cost.members == 20
    assert cost.learn > cost.learn_shared > 0
    assert cost.memory > 500
    assert cost.snapshot > 0


def test_memory_is_told_by_the_module_that_made_it(founded, capsys):
    items = [*founded.records(20, 1), *founded.deeds(20)]
    held = memory_by_module(founded, packed(items))
    assert list(held.values()) == sorted(held.values(), reverse=True)
    bodies = sum(len(item.body) for item in items)
    assert held["overlay/wire/packing.py"] > bodies
    for table in ("gossip/store", "gossip/rings", "gossip/member", "routing/lpm"):
        assert held[f"overlay/{table}.py"] >= 8 * 20
    parser = ArgumentParser()
    add_options(parser)
    members(parser.parse_args(["--members", "20", "--memory"]))
    assert "overlay/gossip/rings.py" in capsys.readouterr().out


def test_each_number_of_members_has_a_column():
    costs = [Cost(count, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0) for count in (10, 1000)]
    table = tabulate(costs)
    assert list(table.head) == ["", "10 members", "1,000 members"]
    assert all(len(row) == 3 for row in table.rows)


@pytest.mark.parametrize("counts", ["many", "0", "5,-1"])
def test_a_wrong_number_is_refused(counts):
    parser = ArgumentParser()
    add_options(parser)
    with pytest.raises(NodeError, match="--members"):
        members(parser.parse_args(["--members", counts]))


def test_the_table_is_printed_and_the_figures_are_written(tmp_path, capsys):
    parser = ArgumentParser()
    add_options(parser)
    members(parser.parse_args(["--members", "3", "--json", str(tmp_path / "out.json")]))
    assert "memory per member" in capsys.readouterr().out
    assert '"members": 3' in (tmp_path / "out.json").read_text("utf-8")
