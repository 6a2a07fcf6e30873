"""Tests of the configuration of the compiled overlays."""

from __future__ import annotations

from pathlib import Path

from bench.peers import Nebula, Tinc, WireguardGo, nebula_yaml, tinc_conf, tinc_host, wireguard_conf
from tests.bench.test_topology import side

FOLDER = Path("/run/x")


def test_wireguard_lets_the_far_node_and_its_pods_in():
    text = wireguard_conf("PRIVATE", "PUBLIC", side(2), 51820)
    assert "PrivateKey = PRIVATE\nListenPort = 51820" in text
    assert "PublicKey = PUBLIC\nEndpoint = 192.0.2.2:51820" in text
    assert "AllowedIPs = 10.97.0.2/32, 10.97.2.0/24" in text


def test_nebula_has_one_lighthouse_and_a_route_to_the_far_pods():
    first = nebula_yaml(side(1), side(2), FOLDER, "n1", 4242)
    second = nebula_yaml(side(2), side(1), FOLDER, "n2", 4242)
    assert "am_lighthouse: true\n  hosts: []" in first
    assert 'am_lighthouse: false\n  hosts: ["10.96.0.1"]' in second
    assert "- route: 10.96.2.0/24\n      via: 10.96.0.2" in first
    assert '"10.96.0.1": ["192.0.2.1:4242"]' in second
    assert "mtu: 1300" in first


def test_tinc_announces_the_node_and_its_pods():
    assert tinc_conf("node1", ["node2"], "t1").splitlines() == [
        "Name = node1",
        "Mode = router",
        "Interface = t1",
        "Device = /dev/net/tun",
        "ConnectTo = node2",
    ]
    assert tinc_host(side(1)) == (
        "Address = 192.0.2.1\nSubnet = 10.95.0.1/32\nSubnet = 10.95.1.0/24\n"
    )


def test_interfaces_differ_between_nodes_and_contestants_and_fit_the_kernel():
    links = [peer.link(side(n)) for peer in (WireguardGo(), Nebula(), Tinc()) for n in (1, 2)]
    assert len(set(links)) == 6
    assert all(len(link) <= 15 for link in links)


def test_daemons_stay_in_the_foreground():
    assert WireguardGo().command(side(1), FOLDER) == ["wireguard-go", "-f", "wire-bench1"]
    assert Nebula().command(side(2), FOLDER) == ["nebula", "-config", "/run/x/node2.yml"]
    assert "-D" in Tinc().command(side(1), FOLDER)
