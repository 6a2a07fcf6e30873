"""Tests of what contestants have in common."""

from __future__ import annotations

import pytest

from bench.compare import CONTESTANTS
from bench.contestants import NoOverlay, Vxlan
from bench.peers import Nebula
from node.errors import NodeError
from tests.bench.test_topology import made


def test_no_two_share_a_name_or_addresses():
    names = [each.name for each in CONTESTANTS]
    octets = [each.octet for each in CONTESTANTS]
    assert len(set(names)) == len(set(octets)) == len(CONTESTANTS) == 6


def test_one_that_is_not_installed_says_which_package_brings_it():
    with pytest.raises(NodeError) as raised:
        Nebula().require(lambda command: None if command == "nebula-cert" else "/usr/bin/x")
    assert str(raised.value) == "nebula needs nebula-cert"
    assert raised.value.fix == "install it with: apt-get install nebula"


def test_those_of_the_kernel_need_nothing():
    NoOverlay().require(lambda _: None)
    Vxlan().require(lambda _: None)


def test_traffic_goes_from_the_first_plain_pod_to_the_second():
    running = Vxlan().running(made(), (7,))
    assert (running.source, running.sink) == ("b-node1-pod2", "b-node2-pod2")
    assert (running.target, running.pids) == ("10.98.2.2", (7,))


def test_what_is_encrypted_is_said():
    assert {each.name for each in CONTESTANTS if not each.encrypted} == {"none", "vxlan"}
