"""Addresses that are held for owners, and what is wrong with addresses."""

from __future__ import annotations

import pytest

from node.control.schema import ControlError
from node.errors import NodeError
from overlay.errors import RefusedError
from tests.support.control import ask


def test_a_check_frees_only_what_it_is_told_to(daemon) -> None:
    (finding,) = ask(daemon, "ipam.check")["findings"]
    assert (finding["code"], finding["frees"], finding["fixed"]) == ("pod-lost", "web", False)
    assert daemon.engine.calls == []
    daemon.strays = ("old",)
    lost, stray = ask(daemon, "ipam.check", fix=True)["findings"]
    assert (lost["fixed"], stray["code"], stray["fixed"]) == (True, "veth-stray", False)
    assert daemon.engine.calls == [("release_lost", [])]
    assert daemon.kept == [b"released"]


def test_a_check_that_finds_nothing_stores_nothing(daemon) -> None:
    daemon.attached = ["web"]
    assert ask(daemon, "ipam.check", fix=True) == {"findings": [], "reserved": []}
    assert daemon.kept == []
    with pytest.raises(ControlError):
        ask(daemon, "ipam.check", fix="yes")


def test_two_addresses_must_be_those_of_one_pod(daemon) -> None:
    ask(daemon, "pod.add", name="a", ip="10.244.0.9", ip6="fd00::9")
    with pytest.raises(ControlError) as caught:
        ask(daemon, "pod.add", name="b", ip="10.244.0.9", ip6="fd00::8")
    assert caught.value.code == "address-pair"


def test_an_address_is_reserved_stored_shown_and_released(daemon) -> None:
    held = ask(daemon, "address.reserve", owner="docker")
    assert (held["owner"], held["address"], held["pod"]) == ("docker", "10.244.0.77", None)
    assert daemon.kept == [b"reserved"]
    assert ask(daemon, "ipam.check")["reserved"] == [held]
    with pytest.raises(RefusedError):
        ask(daemon, "address.reserve", owner="docker", ip="10.244.0.77")
    released = {"owner": "docker", "address": "10.244.0.77"}
    assert ask(daemon, "address.release", **released) == {"released": True}
    assert ask(daemon, "address.release", **released) == {"released": False}


def test_a_reservation_that_cannot_be_stored_is_none(daemon) -> None:
    daemon.disk_full = True
    with pytest.raises(NodeError, match="no space"):
        ask(daemon, "address.reserve", owner="docker")
    assert daemon.engine.held == {}
