"""Tests of scenario files."""

from __future__ import annotations

import pytest

from overlay.errors import ConfigError
from overlay.sim.acts import Crash, Partition
from overlay.sim.nat import NatKind
from overlay.sim.scenario import parse
from overlay.sim.selection import Selection

WHOLE = """
title = "all of it"
until = 50
seed = 9

[cluster]
nodes = 5
seeds = 2
tokens = true

[link]
preset = "lan"
loss = 0.25

[timing]
probe_interval = 1.5

[limits]
half_open = 9

[groups]
west = ["node2", "node3"]

[[links]]
between = ["west", "all"]
link = { preset = "wan" }

[[nat]]
nodes = "west"
kind = "full-cone"

[[event]]
at = 5
do = "crash"
nodes = "30%"
over = 2.0
label = "death"
every = 10
times = 2

[[event]]
at = 6.5
do = "partition"
groups = ["west", "rest"]

[[expect]]
event = "death"
within = 20.0

[[expect]]
false_deaths = 0
"""

LEAST = 'title = "t"\nuntil = 9.0\n'


def test_a_file_becomes_values_and_what_it_does_not_say_is_the_default():
    scenario = parse(WHOLE)
    assert (scenario.title, scenario.until, scenario.seed) == ("all of it", 50.0, 9)
    assert (scenario.cluster.nodes, scenario.cluster.seeds, scenario.cluster.tokens) == (5, 2, True)
    assert scenario.cluster.block_prefix == 24
    assert (scenario.link.link.latency, scenario.link.link.loss) == (0.00025, 0.25)
    assert scenario.timing.probe_interval == 1.5
    assert scenario.limits.half_open == 9
    assert scenario.nat[0].kind is NatKind.FULL_CONE
    death, partition = scenario.event
    assert death.act == Crash(nodes=Selection(("30%",)), over=2.0)
    assert (death.at, death.name, death.every, death.times) == (5.0, "death", 10.0, 2)
    assert partition.act == Partition(groups=(Selection(("west",)), Selection(("rest",))))
    assert partition.name == "partition"
    assert scenario.expect[0].within == 20.0


def test_the_number_of_nodes_can_be_another():
    assert parse(WHOLE).scaled(99).cluster.nodes == 99
    with pytest.raises(ConfigError):
        parse(WHOLE).scaled(1)  # fewer than its seeds


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("until = 9.0", "title"),
        (LEAST + "nodes = 5", "nodes"),
        (LEAST + "[cluster]\nnods = 5", "cluster.nods"),
        (LEAST + "[cluster]\nnodes = 2\nseeds = 3", "cluster.seeds"),
        (LEAST + '[cluster]\ncidr = "10.0.0.1/8"', "cluster.cidr"),
        (LEAST + "[link]\nloss = 2.0", "link.loss"),
        (LEAST + '[[links]]\nbetween = ["a"]\nlink = {}', "links[1].between"),
        (LEAST + '[[nat]]\nnodes = "a"\nkind = "round"', "nat[1].kind"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "dance"', "event[1].do"),
        (LEAST + "[[event]]\nat = 1.0", "event[1].do"),
        (LEAST + '[[event]]\ndo = "heal"', "event[1].at"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "crash"', "event[1].nodes"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "heal"\nnodes = 1', "event[1].nodes"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "heal"\nact = 1', "event[1].act"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "pause"\nnodes = 1', "event[1].seconds"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "slow"\nnodes = 1\nshare = 3.0', "event[1].share"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "partition"\ngroups = ["all"]', "event[1].groups"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "heal"\ntimes = 2', "event[1].every"),
        (LEAST + '[[event]]\nat = -1.0\ndo = "heal"', "event[1].at"),
        (LEAST + '[[event]]\nat = 9.0\ndo = "heal"', "event[1].at"),
        (LEAST + '[[event]]\nat = 5.0\ndo = "heal"\ntimes = 3\nevery = 2.0', "event[1].at"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "heal"\nover = -1.0', "event[1].over"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "crash"\nnodes = 1\nover = -1.0', "event[1].over"),
        (
            LEAST + '[[event]]\nat = 1.0\ndo = "partition"\ngroups = [1, "rest"]\nover = -1.0',
            "event[1].over",
        ),
        (LEAST + '[[event]]\nat = 1.0\ndo = "link"\nlink = {}\nover = -1.0', "event[1].over"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "join"\ncount = 0', "event[1].count"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "pod-add"\nnodes = 1\ncount = -1', "event[1].count"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "pod-delete"\nnodes = 1\ncount = -1', "event[1].count"),
        (
            LEAST + '[[event]]\nat = 1.0\ndo = "pause"\nnodes = 1\nseconds = -1.0',
            "event[1].seconds",
        ),
        (LEAST + '[[event]]\nat = 1.0\ndo = "slow"\nnodes = 1\nseconds = -1.0', "event[1].seconds"),
        (
            LEAST + '[[event]]\nat = 1.0\ndo = "full-disk"\nnodes = 1\nseconds = -1.0',
            "event[1].seconds",
        ),
        (LEAST + '[[event]]\nat = 1.0\ndo = "disk"\nnodes = 1\nlatency = -1.0', "event[1].latency"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "clock-rate"\nnodes = 1\nppm = 1e7', "event[1].ppm"),
        (LEAST + '[[event]]\nat = 1.0\ndo = "clock-rate"\nnodes = 1\nppm = -1e6', "event[1].ppm"),
        ('title = "t"\nuntil = 0.0', "until"),
        (LEAST + '[[nat]]\nnodes = "a"\ntimeout = 0.0', "nat[1].timeout"),
        (LEAST + "[[expect]]", "expect[1].agree"),
        (LEAST + '[[expect]]\nevent = "heal"\nwithin = 1.0', "expect[1].event"),
        (LEAST + "[[expect]]\nwithin = 1.0", "expect[1].event"),
        (LEAST + '[[expect]]\nevent = "begin"', "expect[1].within"),
        (LEAST + "[event]\nat = 1.0", "event"),
        ("title = ", ""),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_the_key_that_is(text, key):
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert refused.value.key == key
