"""Tests of overlay.attachment: what may be said of a pod, and which name it gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.attachment import (
    MAX_CONTAINER,
    MAX_LABELS,
    MAX_PORTS,
    MAX_RATE,
    Attachment,
    HostPort,
    Rate,
    choose_name,
)
from overlay.errors import ConfigError
from overlay.wire.certificate import NAME_MAX, check_name
from tests.support.attachments import ATTACHMENTS

HTTP = HostPort("tcp", 8080, 80)


def test_a_person_need_say_nothing() -> None:
    Attachment().check()


@pytest.mark.parametrize(
    ("said", "key"),
    [
        (Attachment(container="c" * (MAX_CONTAINER + 1)), "container"),
        (Attachment(container="\x1b[2J"), "container"),
        (Attachment(network="a\nb"), "network"),
        (Attachment(interface=""), "interface"),
        (Attachment(interface="lo"), "interface"),
        (Attachment(interface="all"), "interface"),
        (Attachment(interface="eth0/.."), "interface"),
        (Attachment(interface=".."), "interface"),
        (Attachment(interface="eth%d"), "interface"),
        (Attachment(interface="eth0:1"), "interface"),
        (Attachment(interface="e" * 16), "interface"),
        (Attachment(labels=(("", "x"),)), "labels"),
        (Attachment(labels=(("a", "x"), ("a", "y"))), "labels"),
        (Attachment(labels=(("a", "\t"),)), "labels"),
        (Attachment(labels=tuple((str(i), "") for i in range(MAX_LABELS + 1))), "labels"),
        (Attachment(ingress=Rate(0, 100)), "ingress"),
        (Attachment(egress=Rate(100, MAX_RATE + 1)), "egress"),
        (Attachment(ports=(HostPort("icmp", 1, 1),)), "ports"),
        (Attachment(ports=(HostPort("tcp", 0, 1),)), "ports"),
        (Attachment(ports=(HostPort("tcp", 1, 65536),)), "ports"),
        (Attachment(ports=(HostPort("tcp", 1, 1, "localhost"),)), "ports"),
        (Attachment(ports=(HostPort("tcp", 1, 1, "2001:DB8::1"),)), "ports"),
        (Attachment(ports=(HostPort("tcp", 1, 1, "fe80::1%eth0"),)), "ports"),
        (Attachment(ports=(HostPort("tcp", 1, 1, "::%x\nflush ruleset"),)), "ports"),
        (Attachment(ports=(HTTP, HTTP)), "ports"),
        (Attachment(ports=(HTTP, HostPort("tcp", 8080, 81, "192.0.2.1"))), "ports"),
        (Attachment(ports=tuple(HostPort("tcp", 1 + i, 1) for i in range(MAX_PORTS + 1))), "ports"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_its_key(said: Attachment, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        said.check()
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("other", "collides"),
    [
        (HostPort("tcp", 8080, 81), True),
        (HostPort("tcp", 8080, 80, "192.0.2.1"), True),
        (HostPort("udp", 8080, 80), False),
        (HostPort("tcp", 8081, 80), False),
    ],
)
def test_ports_collide_where_one_packet_could_mean_both(other: HostPort, *, collides: bool) -> None:
    assert HTTP.collides(other) == other.collides(HTTP) == collides
    here, there = HostPort("tcp", 1, 1, "192.0.2.1"), HostPort("tcp", 1, 1, "192.0.2.2")
    assert not here.collides(there)


def test_a_port_is_shown_as_people_write_it() -> None:
    assert str(HTTP) == "8080:80/tcp"
    assert str(HostPort("udp", 53, 5353, "2001:db8::1")) == "[2001:db8::1]:53:5353/udp"


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({"pod": "web-0"}, "web-0"),
        ({"namespace": "shop", "pod": "web-0"}, "shop-web-0"),
        ({"namespace": "shop"}, "cni-c0ffee001122"),
        ({"namespace": "Ω", "pod": "Ω"}, "cni-c0ffee001122"),
        ({}, "cni-c0ffee001122"),
    ],
)
def test_a_name_is_made_of_what_people_know_the_pod_by(labels: dict[str, str], name: str) -> None:
    said = Attachment("c0ffee00112233445566", labels=tuple(labels.items()))
    assert choose_name(said, "cni", ()) == name


def test_names_of_two_interfaces_and_of_namesakes_differ_and_come_again() -> None:
    labels = (("pod", "p" * 70),)
    first = Attachment("a", labels=labels)
    names = [choose_name(first, "cni", ())]
    for said in (Attachment("a", "net1", labels=labels), Attachment("b", labels=labels)):
        names.append(choose_name(said, "cni", names))
        assert choose_name(said, "cni", names[:-1]) == names[-1]
    assert len(set(names)) == 3
    assert names[1].endswith("-net1")


@given(said=ATTACHMENTS, owner=st.text(min_size=1, max_size=40), taken=st.booleans())
def test_every_name_is_one(said: Attachment, owner: str, *, taken: bool) -> None:
    everything = type("Everything", (), {"__contains__": lambda *_: taken})()
    name = choose_name(said, owner, everything)
    assert check_name(name) == name
    assert len(name) <= NAME_MAX


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("0.0.0.0", "192.0.2.1", True),
        ("0.0.0.0", "2001:db8::1", False),
        ("::", "2001:db8::1", True),
        ("::", "0.0.0.0", False),
        ("", "::", True),
    ],
)
def test_ports_collide_where_their_hosts_have_an_address_in_common(
    one: str, other: str, collide: bool
) -> None:
    ports = HostPort("tcp", 80, 80, one), HostPort("tcp", 80, 81, other)
    assert ports[0].collides(ports[1]) is ports[1].collides(ports[0]) is collide
