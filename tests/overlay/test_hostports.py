"""Tests of overlay.hostports: ports of pods at addresses that lead nowhere."""

from __future__ import annotations

from ipaddress import ip_network

from overlay.attachment import Attachment, HostPort
from overlay.hostports import MAX_NAMED, HostPorts
from overlay.state import StoredPod
from overlay.views import Problem
from tests.sim.worlds import settled

MACHINE = frozenset(map(ip_network, ("127.0.0.0/8", "192.0.2.1/32", "::1/128", "2001:db8::1/128")))
LATER, LATER6 = ip_network("203.0.113.9/32"), ip_network("2001:db8::9/128")


def pod(name: str, *hosts: str) -> StoredPod:
    ports = tuple(HostPort("tcp", 8080 + at, 80, host) for at, host in enumerate(hosts))
    return StoredPod(name, f"/ns/{name}", 1, 2, 0, attachment=Attachment(ports=ports))


def named(*pods: StoredPod, held: frozenset = MACHINE, dual: bool = True) -> list[Problem]:
    ports = HostPorts(dual=dual)
    ports.follow(held)
    return list(ports.problems(pods))


def test_ports_at_addresses_of_the_machine_are_no_problem() -> None:
    everywhere = "", "0.0.0.0", "::"
    assert named(pod("web", *everywhere, "127.0.0.1", "127.7.7.7", "192.0.2.1")) == []
    assert named(pod("web", "2001:db8::1"), pod("other")) == []
    assert named(pod("web", *everywhere), dual=False) == []


def test_a_port_at_another_address_is_named_with_its_pod_until_the_address_is_there() -> None:
    web = pod("web", "192.0.2.1", str(LATER[0]), str(LATER6[0]))
    four, six = named(web)
    assert four == Problem(
        "port-nowhere",
        "port 203.0.113.9:8081:80/tcp of pod web leads nowhere",
        "this machine does not have the address 203.0.113.9",
        "give it that address, and the port is open; or publish it without an address, or at "
        "another one",
    )
    assert six.what == "port [2001:db8::9]:8082:80/tcp of pod web leads nowhere"
    assert named(web, held=MACHINE | {LATER}) == [six]
    assert named(web, held=MACHINE | {ip_network("203.0.113.0/24"), LATER6}) == []


def test_nothing_is_named_while_it_is_not_known_what_the_machine_has() -> None:
    assert list(HostPorts(dual=True).problems([pod("web", str(LATER[0]))])) == []


def test_what_can_never_work_is_named_whatever_the_machine_has() -> None:
    (loopback,) = named(pod("web", "::1"))
    assert (loopback.why, loopback.fix) == (
        "Linux leads nothing from ::1 to a pod",
        "publish it at 127.0.0.1",
    )
    (single,) = named(pod("web", "2001:db8::1"), dual=False)
    assert single.why == "the cluster has no IPv6"


def test_of_many_some_are_named_and_the_others_counted() -> None:
    many = ["203.0.113.9"] * (MAX_NAMED - 1)
    *lines, more = named(pod("z", *many), pod("a", *many[:3]))
    assert len(lines) == MAX_NAMED
    assert [line.what.split()[4] for line in lines] == ["a"] * 3 + ["z"] * (MAX_NAMED - 3)
    assert more.what == "2 more ports of pods lead nowhere"
    assert {line.code for line in (*lines, more)} == {"port-nowhere"}
    assert len(named(pod("z", *many), pod("a", *many[:1]))) == MAX_NAMED


def test_a_node_says_it_in_its_status() -> None:
    world = settled(1)
    machine = world["node1"]
    said = pod("web", str(LATER[0])).attachment
    _, effects = machine.engine.add_pod("web", "/ns/web", None, world.now, attachment=said)
    machine.perform(effects)
    for held, codes in (((), []), (MACHINE, ["port-nowhere"]), (MACHINE | {LATER}, [])):
        machine.engine.on_own_addresses(held)
        assert [one.code for one in machine.snapshot().problems] == codes
    machine.engine.on_own_addresses(MACHINE)
    _, effects = machine.engine.remove_pod("web", world.now)
    machine.perform(effects)
    assert machine.snapshot().problems == ()
