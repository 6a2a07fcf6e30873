from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_network

import pytest

from node import values
from node.loop import LoopKind
from overlay.types import Endpoint
from overlay.wire.messages import LANES_LIMIT


@pytest.mark.parametrize(
    ("read", "given", "expected"),
    [
        (values.endpoint, "192.0.2.1:7", Endpoint("192.0.2.1", 7)),
        (values.endpoints, "192.0.2.1:7,[2001:db8::1]:8", 2),
        (values.endpoints, [], 0),
        (values.prefixes, "192.168.7.0/24, 2001:db8::/32", 2),
        (values.prefixes, ["10.0.0.0/8", "10.0.0.0/8"], (ip_network("10.0.0.0/8"),)),
        (values.prefixes, "", ()),
        (values.mtu, 1280, 1280),
        (values.mtu, "9000", 9000),
        (values.underlay_mtu, "auto", None),
        (values.underlay_mtu, 9216, 9216),
        (values.tun_offloads, True, ("checksum", "tso", "uso")),
        (values.tun_offloads, "false", ()),
        (values.tun_offloads, "uso, checksum", ("checksum", "uso")),
        (values.lanes, "3", 3),
        (values.lanes, LANES_LIMIT, LANES_LIMIT),
        (values.certificate_days, "1", 1),
        (values.certificate_days, 3650, 3650),
        (values.switch, "true", True),
        (values.docker, True, "/run/docker/plugins/muslin.sock"),
        (values.docker, "true", "/run/docker/plugins/muslin.sock"),
        (values.docker, "/srv/docker.sock", "/srv/docker.sock"),
        (values.docker, "", ""),
        (values.docker, False, ""),
        (values.interface, "muslin0", "muslin0"),
        (values.loop_kind, "asyncio", LoopKind.ASYNCIO),
    ],
)
def test_what_a_file_or_a_variable_may_say(
    read: Callable[[object], object], given: object, expected: object
):
    found = read(given)
    assert (len(found) if isinstance(found, tuple) and isinstance(expected, int) else found) == (
        expected
    )


@pytest.mark.parametrize(
    ("read", "given", "clause"),
    [
        (values.endpoint, 7, "must be"),
        (values.endpoint, "nowhere", "nowhere"),
        (values.endpoints, "0.0.0.0:7", "is not an address that others can reach"),
        (values.prefixes, "192.168.7.1/24", "has host bits set"),
        (values.prefixes, "192.168.7.1", 'must be "ADDRESS/LENGTH"'),
        (values.prefixes, [7], 'must be "ADDRESS/LENGTH"'),
        (values.prefixes, 7, "must be a list"),
        (values.docker, "muslin.sock", "must be true, false or the whole path"),
        (values.docker, 7, "must be true, false or the whole path"),
        (values.prefixes, [f"10.{n}.0.0/16" for n in range(9)], "at most 8 networks, not 9"),
        (values.mtu, 1279, "must be 1280 to 9000, not 1279"),
        (values.mtu, True, "must be a number"),
        (values.underlay_mtu, 9217, "must be 1280 to 9216"),
        (values.tun_offloads, ["tso"], "must have checksum"),
        (values.lanes, 0, "must be 1 to 16, or auto"),
        (values.lanes, "²", "must be 1 to 16, or auto"),
        (values.certificate_days, 0, "must be 1 to 3650 days, not 0"),
        (values.certificate_days, "3651", "must be 1 to 3650 days"),
        (values.certificate_days, True, "must be 1 to 3650 days"),
        (values.certificate_days, 1.5, "must be 1 to 3650 days"),
        (values.switch, "yes", "must be true or false"),
        (values.interface, "a b", "is not an interface name"),
        (values.group, 7, "must be the name of a group"),
        (values.group, "a\nb", "must be the name of a group"),
        (values.group, "no-such-group", "groupadd no-such-group"),
        (values.interface, "x" * 16, "at most 15 characters"),
        (values.loop_kind, "uvlop", "did you mean uvloop?"),
    ],
)
def test_what_it_may_not_say_is_refused_with_one_clause(
    read: Callable[[object], object], given: object, clause: str
):
    with pytest.raises(ValueError, match=clause.replace("?", "[?]")):
        read(given)


def test_lanes_by_themselves_are_as_many_as_processors_up_to_a_bound():
    assert values.lanes("auto") == min(len(os.sched_getaffinity(0)), values.MOST_LANES_BY_ITSELF)
