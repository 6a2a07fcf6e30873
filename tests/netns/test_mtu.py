"""Item 3 of what Muslin promises: pods see 1500 bytes, whatever the underlay carries.

    pod, 1500 -- node1 -- eth0 ==== port | br0 | port ==== eth0 -- node2 -- pod, 1500
                          1500, 1400 or 1280: of all links, or of the ports in the middle alone

A lowered eth0 is seen by the kernel that sends; a lowered port is not: the bridge drops what is too
large without a word, as a misconfigured switch does.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from node.lab.traffic import content
from tests.support.labs import Lab, LabMaker, Place
from tests.support.machines import Machine
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.traffic import copy, echo_datagrams, is_answered, opened, ping, reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

COPY = 64 << 20

FULL = {4: 1472, 6: 1452}
"""Payload of the largest echo request that fits 1500 bytes, by family of the pods' addresses."""

PROBED = 20.0
"""Seconds until the path MTU is known: three tries of half a second for each of a few sizes, and
more where a busy machine comes too late for them."""

TOLD = 10.0
"""Seconds until full packets pass again when the kernel says that they became too large: at once,
on a machine that has time."""

UNTOLD = 15.0
"""The same when nobody says so: the far end misses segments for a second, says so, and three tries
of half a second prove it. Without that, it would be the next confirmation, up to 30 seconds."""

LOOKS = 20.0
"""Seconds until a link that carries more than before is made use of."""


@pytest.fixture(
    scope="module",
    params=[("ipv4", 1500), ("ipv4", 1400), ("ipv4", 1280), ("ipv6", 1500), ("ipv6", 1280)],
    ids=lambda value: "-".join(map(str, value)),
)
def narrow(request: pytest.FixtureRequest, make_module_lab: LabMaker) -> tuple[Lab, int]:
    """A lab, and the MTU of its underlay."""
    underlay, mtu = request.param
    if mtu == 1500:
        return request.getfixturevalue("lab" if underlay == "ipv4" else "lab6"), mtu
    return make_module_lab(underlay=underlay, mtu=mtu), mtu


def path_mtus(lab: Lab) -> tuple[int, int]:
    """What each of two nodes uses towards the other, while a packet goes each way."""
    reaches(lab["node1-pod1"], lab["node2-pod1"].address)  # else the path is not measured
    return lab.session("node1", "node2")["mtu"], lab.session("node2", "node1")["mtu"]


def test_the_whole_path_is_used(narrow: tuple[Lab, int]) -> None:
    lab, mtu = narrow
    eventually(lambda: path_mtus(lab) == (mtu, mtu), within=PROBED)


@pytest.mark.parametrize("family", [4, 6], ids=["pods-ipv4", "pods-ipv6"])
def test_pods_send_1500_bytes_and_no_more(narrow: tuple[Lab, int], family: int) -> None:
    lab, _ = narrow
    near, far = lab["node1-pod1"], lab["node2-pod1"]
    full = FULL[family]
    said, lost = ping(
        near, far.at(family), "-M", "do", "-s", str(full), "-i", "0.2", count=3, wait=10
    )
    assert lost == 0.0, said
    said, lost = ping(near, far.at(family), "-M", "do", "-s", str(full + 1))
    assert lost == 1.0, said
    assert re.search(r"message too long, mtu[=:] ?1500", said), said


@pytest.mark.parametrize("family", [4, 6], ids=["pods-ipv4", "pods-ipv6"])
def test_a_large_transfer_arrives_whole(narrow: tuple[Lab, int], family: int) -> None:
    lab, _ = narrow
    copy(lab["node1-pod1"], lab["node2-pod1"], COPY, family=family)


# -- while it runs ---------------------------------------------------------------------------------


@pytest.fixture
def wide(make_lab: LabMaker) -> Lab:
    """A lab that uses 1500 bytes, over links that really carry one datagram at a time.

    Between virtual links the kernel would hand over bursts uncut, whatever the MTU on the way.
    """
    lab = make_lab()
    for node in lab.nodes:
        run(node.netns, "ip", "link", "set", "eth0", "gso_max_segs", "1")
    eventually(lambda: path_mtus(lab) == (1500, 1500), within=PROBED)
    return lab


def full_pings_pass(lab: Lab) -> bool:
    near, far = lab["node1-pod1"], lab["node2-pod1"]
    return all(reaches(near, far.at(family), "-s", str(size)) for family, size in FULL.items())


def test_lowered_interfaces_interrupt_nothing(wide: Lab) -> None:
    near, far = wide["node1-pod1"], wide["node2-pod1"]
    with stream_between(near, far) as (sender, receiver):
        assert moves(sender, receiver)
        for node in wide.nodes:
            run(node.netns, "ip", "link", "set", "eth0", "mtu", "1300")
        assert moves(sender, receiver)
        assert moves(receiver, sender)
    eventually(lambda: full_pings_pass(wide), within=TOLD)
    eventually(lambda: path_mtus(wide) == (1280, 1280), within=PROBED)
    copy(near, far, COPY)


def test_a_black_hole_in_the_middle_is_found(wide: Lab) -> None:
    for node in wide.nodes:
        run(wide.underlay, "ip", "link", "set", node.name, "mtu", "1300")
    assert not full_pings_pass(wide), "the hole lets everything through: it proves nothing"
    eventually(lambda: full_pings_pass(wide), within=UNTOLD)
    eventually(lambda: path_mtus(wide) == (1280, 1280), within=PROBED)
    copy(wide["node1-pod1"], wide["node2-pod1"], COPY)
    copy(wide["node2-pod1"], wide["node1-pod1"], COPY)


def test_a_stream_goes_on_when_its_path_becomes_a_black_hole(wide: Lab) -> None:
    near, far = wide["node1-pod1"], wide["node2-pod1"]
    with stream_between(near, far) as (sender, receiver):
        assert moves(sender, receiver)
        for node in wide.nodes:
            run(wide.underlay, "ip", "link", "set", node.name, "mtu", "1300")
        assert moves(sender, receiver, within=UNTOLD)
        assert moves(receiver, sender, within=UNTOLD)
    eventually(lambda: path_mtus(wide) == (1280, 1280), within=PROBED)


# -- jumbo frames ----------------------------------------------------------------------------------


def link_up_to(lab: Lab, mtu: int) -> None:
    """Let every link of the underlay carry so much, one datagram at a time."""
    for node in lab.nodes:
        run(lab.underlay, "ip", "link", "set", node.name, "mtu", str(mtu))
        run(node.netns, "ip", "link", "set", "eth0", "mtu", str(mtu), "gso_max_segs", "1")


def sent(node: Place) -> tuple[int, int]:
    """Bytes and packets that a node's underlay interface has sent."""
    (link,) = json.loads(run(node.netns, "ip", "-j", "-s", "link", "show", "eth0"))
    return link["stats64"]["tx"]["bytes"], link["stats64"]["tx"]["packets"]


def mean_size(lab: Lab) -> float:
    """Mean size of what node1 puts on the wire while its pod sends a file."""
    before = sent(lab.nodes[0])
    copy(lab["node1-pod1"], lab["node2-pod1"], COPY)
    octets, packets = (now - was for now, was in zip(sent(lab.nodes[0]), before, strict=True))
    return octets / packets


@pytest.fixture(scope="module")
def jumbo(make_module_lab: LabMaker) -> Lab:
    """A lab over jumbo frames, without any setting that says so."""
    lab = make_module_lab(mtu=9000)
    link_up_to(lab, 9000)
    return lab


def test_jumbo_frames_are_found_and_filled_without_a_setting(jumbo: Lab) -> None:
    eventually(lambda: path_mtus(jumbo) == (9000, 9000), within=PROBED)
    assert jumbo.session("node1", "node2")["mtu_state"] == "settled"
    # 65,000 bytes are seven full segments and a rest.
    assert mean_size(jumbo) > 7000
    copy(jumbo["node2-pod1"], jumbo["node1-pod1"], COPY, family=6)
    echo_datagrams(jumbo["node1-pod1"], jumbo["node2-pod1"], [1, 1472, 8928, 8929, 30_000, 60_000])
    assert full_pings_pass(jumbo)


def test_a_path_that_is_narrower_than_the_interface_costs_one_round_trip(
    make_lab: LabMaker,
) -> None:
    lab = make_lab(mtu=9000)
    link_up_to(lab, 9000)
    for node in lab.nodes:  # the switch in the middle has no jumbo frames, and says nothing
        run(lab.underlay, "ip", "link", "set", node.name, "mtu", "1500")
    machines = [Machine(lab.info, node.name) for node in lab.nodes]
    for machine in machines:
        machine.stop()
    for machine in machines:
        machine.up()
    eventually(lambda: full_pings_pass(lab), within=UNTOLD)
    eventually(lambda: path_mtus(lab) == (1500, 1500), within=PROBED)
    copy(lab["node1-pod1"], lab["node2-pod1"], COPY)


def test_links_that_carry_more_than_before_are_made_use_of(make_lab: LabMaker) -> None:
    lab = make_lab()
    eventually(lambda: path_mtus(lab) == (1500, 1500), within=PROBED)
    link_up_to(lab, 9000)
    eventually(lambda: path_mtus(lab) == (9000, 9000), within=LOOKS)
    assert mean_size(lab) > 7000


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_pods_may_have_9000_bytes_over_any_underlay(make_lab: LabMaker, mtu: int) -> None:
    lab = make_lab(mtu=mtu, settings={"MUSLIN_MTU": "9000"})
    link_up_to(lab, mtu)
    near, far = lab["node1-pod1"], lab["node2-pod1"]
    for family, headers in ((4, 28), (6, 48)):
        assert is_answered(near, far.at(family), "-M", "do", "-s", str(9000 - headers))
        assert not reaches(near, far.at(family), "-M", "do", "-s", str(9001 - headers))
        copy(near, far, COPY, family=family)
        echo_datagrams(far, near, [1, 1472, 8952, 8972, 8973, 60_000], family=family)


@contextmanager
def stream_between(near: Place, far: Place) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection between two pods."""
    with opened(far, socket.SOCK_STREAM, 4) as listener, opened(near, socket.SOCK_STREAM, 4) as one:
        listener.bind((far.address, 0))
        listener.listen()
        one.connect(listener.getsockname())
        other, _ = listener.accept()
        with other:
            yield one, other


def moves(sender: socket.socket, receiver: socket.socket, *, within: float = TOLD) -> bool:
    """Whether a quarter of a megabyte gets through a stream, in time."""
    data = content(256 << 10)
    receiver.settimeout(within)
    received = b""
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(sender.sendall, data)
        while len(received) < len(data):
            received += receiver.recv(len(data))
        sent.result()
    return received == data
