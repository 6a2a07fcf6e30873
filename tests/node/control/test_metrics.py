"""The metrics as text, read back by parsers that are not ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from node.control.metrics import FAMILIES, PREFIX, exposition
from node.control.present import LaneFacts
from node.kernel.guard import GuardFacts
from overlay.sim import World
from overlay.views import NodeState
from tests.sim.worlds import settled
from tests.support.daemon import FACTS, PROBLEM, node_view, snapshot

DAY = 86_400.0
LANES = (LaneFacts(0, 7, 6875, "up", 0, 1.5), LaneFacts(1, None, 6876, "waiting", 3, 0.25))
FULL = replace(FACTS, lanes=LANES, guard=GuardFacts(drops={"source": 4}), problems=(PROBLEM,))

Samples = dict[tuple[str, ...], float]


def read(text: str, parse=openmetrics) -> dict[str, Samples]:
    """By name of the sample without the prefix: values by the values of the labels."""
    found: dict[str, Samples] = {}
    for family in parse(text):
        for sample in family.samples:
            values = found.setdefault(sample.name.removeprefix(PREFIX), {})
            key = tuple(sample.labels.values())
            assert key not in values, f"{sample.name} {key} occurs twice"
            values[key] = sample.value
    return found


def shown(**changes: object) -> dict[str, Samples]:
    return read(exposition(snapshot(**changes), FULL))


def test_every_family_is_there_with_its_type_unit_and_help() -> None:
    families = {family.name: family for family in openmetrics(exposition(snapshot(), FULL))}
    assert list(families) == [PREFIX + family.name for family in FAMILIES]
    for family in FAMILIES:
        read_back = families[PREFIX + family.name]
        assert (read_back.type, read_back.unit) == (family.kind, family.unit)
        assert read_back.documentation == family.help
        assert read_back.samples, f"the example has no {family.name}"


def test_the_older_format_says_the_same() -> None:
    text = exposition(snapshot(), FULL)
    assert read(text, prometheus) == read(text)


def test_the_end_is_marked() -> None:
    assert exposition(snapshot(), FULL).endswith("\n# EOF\n")


def test_when_certificates_end_is_told_in_seconds_from_now() -> None:
    found = shown()
    assert found["certificate_expiry_seconds"] == {(): 90 * DAY - 100.0}
    assert found["member_certificate_expiry_seconds"] == {("node2", "02" * 8): 90 * DAY - 100.0}
    gone = shown(nodes=(node_view(1), node_view(2, expires=None)))
    assert "member_certificate_expiry_seconds" not in gone
    assert shown(expires=1_700_000_000)["certificate_expiry_seconds"] == {(): -100.0}


def test_the_ledger_is_told_as_it_is() -> None:
    found = shown()
    assert found["ledger_in_total"] == {(): 10}
    assert found["ledger_out_total"] == {(): 7}
    assert found["ledger_queued"] == {(): 1}
    assert found["ledger_drops_total"] == {("no_route",): 2, ("bad_tag",): 0}


def test_nodes_are_counted_by_state_and_problems_by_code() -> None:
    found = shown(nodes=(node_view(1), node_view(2, state=NodeState.DEAD)), problems=(PROBLEM,))
    assert found["nodes"] == {
        ("ready",): 1,
        ("suspect",): 0,
        ("dead",): 1,
        ("left",): 0,
        ("removed",): 0,
    }
    assert found["problems"] == {("no-block",): 2}


def test_sessions_lanes_and_the_rest() -> None:
    found = shown(items=12, gossip={"awareness": 3, "refuted": 1})
    assert found["session_sent_bytes_total"] == {("node2", "02" * 8): 5000}
    assert found["session_received_bytes_total"] == {("node2", "02" * 8): 700}
    assert found["lane_cpu_seconds_total"] == {("0",): 1.5, ("1",): 0.25}
    assert found["lane_restarts_total"] == {("0",): 0, ("1",): 3}
    assert found["guard_drops_total"] == {("source",): 4}
    assert (found["sessions"], found["pods"], found["routes"]) == ({(): 1}, {(): 1}, {(): 2})
    assert (found["store_items"], found["gossip_awareness"]) == ({(): 12}, {(): 3})
    assert found["gossip_events_total"] == {("refuted",): 1}
    assert found["node_info"] == {("node1", "00112233aabbccdd", FACTS.version): 1}


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", 'a\\"\n', "ü {}=,"])
def test_whatever_a_name_is_it_stays_one_label(name: str) -> None:
    found = shown(nodes=(node_view(1), node_view(2, name=name)))
    assert list(found["member_certificate_expiry_seconds"]) == [(name, "02" * 8)]


def test_a_name_that_was_given_again_is_no_label_twice() -> None:
    two = (node_view(2, name="web"), node_view(3, name="web"))
    found = shown(nodes=(node_view(1), *two))
    assert len(found["member_certificate_expiry_seconds"]) == 2


def test_an_engine_s_snapshot_has_it_all() -> None:
    world: World = settled(3)
    shot = world["node1"].snapshot()
    found = read(exposition(shot, replace(FULL, epoch=0.0, problems=())))
    assert found["nodes"][("ready",)] == 3
    assert found["store_items"][()] == len(world["node1"].engine.parts.store) > 3
    assert found["ledger_in_total"][()] == shot.ledger.received > 0
    assert len(found["member_certificate_expiry_seconds"]) == 2
    assert "problems" not in found
