"""A certificate that is renewed on real daemons, under traffic.

node1 -- holds the authority's key     node2 -- its certificate ends in less than a minute
"""

from __future__ import annotations

import signal
import time
from datetime import datetime

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from node.identity import load_node
from node.state import CLUSTER, StateFolder
from overlay.wire.certificate import issue_certificate
from overlay.wire.packing import pack
from tests.support.labs import Place
from tests.support.machines import Machine, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import background
from tests.support.traffic import reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

PAST, LEFT = 45, 45
"""Seconds of the short certificate before and after it is made: due in 15, over in 45."""

SOON = 30.0
"""Seconds, for what takes one or two, on a machine that may be busy with other things."""


@pytest.fixture
def pair(make_yard: YardMaker) -> tuple[Machine, Machine]:
    """Two members with pods."""
    yard = make_yard(2)
    node1, node2 = yard.found(), yard.join(yard.machines[1])
    for machine in (node1, node2):
        machine.says("pod", "add", "pod")
    return node1, node2


def shorten(machine: Machine, authority: Machine) -> float:
    """Give a node that is down a certificate that ends soon; when, in Unix seconds."""
    folder = StateFolder(machine.state)
    node, (key, *_) = load_node(folder), load_node(StateFolder(authority.state)).authorities
    now, old = int(time.time()), node.certificate
    short = issue_certificate(
        key,
        node=old.node,
        static=old.static,
        name=old.name,
        cluster=old.cluster,
        serial=old.serial + 1,
        not_before=now - PAST,
        not_after=now + LEFT,
    )
    folder.write(CLUSTER, pack([node.cluster.encode(), node.psk, short.encode()]))
    return short.not_after


def left(machine: Machine) -> float:
    """Seconds that the certificate in use is still valid."""
    seconds = machine.ask("status")["certificate_expiry_seconds"]
    assert isinstance(seconds, float)
    return seconds


def shown(machine: Machine, name: str) -> float:
    """When another node's certificate ends, as a node knows it, in Unix seconds."""
    (row,) = (row for row in machine.get("nodes") if row["name"] == name)
    return datetime.fromisoformat(str(row["certificate_expires"])).timestamp()


@pytest.mark.alone("netns")
def test_traffic_goes_on_while_a_certificate_is_renewed_and_after_the_old_one_ended(
    pair: tuple[Machine, Machine],
) -> None:
    node1, node2 = pair
    source: Place = node1.place("pod")
    target = node2.place("pod").address
    node2.stop()
    ends = shorten(node2, node1)
    node2.up()
    assert left(node2) < LEFT
    eventually(lambda: reaches(source, target), within=SOON)
    count = int((ends + 10 - time.time()) * 5)
    words = ("ping", "-n", "-q", "-i", "0.2", "-c", str(count), "-W", "5", target)
    with background(source.netns, *words) as ping:
        eventually(lambda: left(node2) > 30 * 86_400, within=LEFT)
        eventually(lambda: shown(node1, "node2") > ends + 86_400, within=SOON)
        assert time.time() < ends, "it was renewed while the old one was good"
        said = ping.rest(LEFT + SOON)
    assert time.time() > ends
    assert f"{count} packets transmitted, {count} received" in said, said
    # Nothing but the new certificate makes a session now, and it is there after a crash.
    node2.stop(signal.SIGKILL)
    node2.up()
    assert left(node2) > 30 * 86_400
    eventually(lambda: reaches(source, target), within=SOON)
    eventually(lambda: node2.problems() == set(), within=SOON)


def test_metrics_and_status_tell_when_it_ends(pair: tuple[Machine, Machine]) -> None:
    node1, node2 = pair
    eventually(lambda: len(node1.get("nodes")) == 2, within=SOON)
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(node1.says("metrics"))
        for sample in family.samples
    }
    assert 89 * 86_400 < found["muslin_certificate_expiry_seconds"] < 90 * 86_400
    assert 89 * 86_400 < found["muslin_member_certificate_expiry_seconds"] < 90 * 86_400
    assert found["muslin_ledger_in_total"] > 0
    assert "\ncertificate  valid until " in node2.says("status")


def test_the_authority_s_node_says_how_long_certificates_live(make_yard: YardMaker) -> None:
    yard = make_yard(2)
    node1 = yard.found("--certificate-days", "2")
    node2 = yard.join(yard.machines[1])
    for machine in (node1, node2):
        assert 86_400 < left(machine) <= 2 * 86_400
