"""What is missing on the machine is named before anything happens."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from node import preflight
from node.errors import NodeError
from node.kernel.overlap import HostRoute
from node.preflight import has_aes
from tests.node.test_identity import make_node


def status(tmp_path, capabilities: int):
    path = tmp_path / "status"
    path.write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
    return path


def test_with_the_capability_the_network_may_be_changed(tmp_path) -> None:
    preflight.check_privilege(status(tmp_path, 1 << 12))


@pytest.mark.parametrize(("euid", "fix"), [(1000, "run as root"), (0, "NET_ADMIN")])
def test_without_it_the_fix_depends_on_who_runs(tmp_path, monkeypatch, euid, fix) -> None:
    monkeypatch.setattr("os.geteuid", lambda: euid)
    with pytest.raises(NodeError, match="CAP_NET_ADMIN") as caught:
        preflight.check_privilege(status(tmp_path, ~(1 << 12) & (1 << 41) - 1))
    assert fix in caught.value.fix
    assert caught.value.code == "no-privilege"


def test_a_kernel_that_tells_nothing_grants_nothing(tmp_path) -> None:
    (tmp_path / "status").write_text("Name:\tx\n")
    with pytest.raises(NodeError):
        preflight.check_privilege(tmp_path / "status")


def test_a_missing_tun_device_is_named(tmp_path) -> None:
    with pytest.raises(NodeError, match=r"there is no .*/tun") as caught:
        preflight.check_tun(tmp_path / "tun")
    assert caught.value.code == "no-tun"
    assert "modprobe tun" in caught.value.fix


def test_a_device_that_cannot_be_opened_says_why(tmp_path) -> None:
    with pytest.raises(NodeError, match="cannot be opened"):
        preflight.check_tun(tmp_path)


def test_a_device_that_opens_is_fine() -> None:
    preflight.check_tun(preflight.Path("/dev/null"))


def test_an_overlapping_route_is_named_with_the_range() -> None:
    cluster = make_node().cluster
    with pytest.raises(NodeError) as caught:
        preflight.check_overlap(cluster, [HostRoute(ip_network("10.244.7.0/24"), "eth1")])
    assert str(caught.value) == (
        "the cluster range 10.244.0.0/16 overlaps the host route 10.244.7.0/24 dev eth1"
    )
    assert "--cidr" in caught.value.fix


def test_other_routes_do_not_matter() -> None:
    routes = [HostRoute(ip_network("0.0.0.0/0"), "eth0"), HostRoute(ip_network("10.0.0.0/24"), "e")]
    preflight.check_overlap(make_node().cluster, routes)


def test_the_processor_s_aes_is_read_from_its_flags():
    with open("/proc/cpuinfo") as file:
        assert has_aes() == (" aes" in file.read())
