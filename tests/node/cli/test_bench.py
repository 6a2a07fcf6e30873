"""`muslin bench`: what is shown of figures, for people and programs, and how it is refused."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_address

import pytest

from node.bench.figures import Datagrams, Figures, Load, Stream, Way
from node.cli.bench import as_json, as_text, rate
from overlay.effects import BenchAnswered
from tests.support.daemon import NODE2, node_view, snapshot

ABOUT = {
    "target": "node2",
    "kind": "node",
    "node": "node2",
    "path": "direct",
    "seconds": 3.0,
    "streams": 1,
}
FULL = Load(0.98, 0.98, 0.01, 2)
IDLE = Load(0.2, 0.2, 0.7, 2)


def stream(direction: str, gigabits: float, here: Load | None = None) -> Stream:
    return Stream(direction, round(gigabits * 1e9 / 8), 1.0, 1000, 0, here, IDLE if here else None)


def figures() -> Figures:
    through = Way(
        "10.244.1.1", [stream("to", 6.81, FULL)], Datagrams(100, 100, [0.00021] * 98 + [0.0006] * 2)
    )
    beside = Way("192.0.2.2", [stream("to", 11.9)], Datagrams(100, 100, [0.00005] * 100))
    return Figures(through, beside)


def test_people_read_a_table_and_a_verdict() -> None:
    assert as_text(ABOUT, figures(), ("to",)).splitlines() == [
        "node node2 (10.244.1.1), direct, 1 TCP stream, 3 s each",
        "through the overlay   6.81 Gbit/s    rtt 0.21 ms p50, 0.60 ms p99   loss 0.0 %",
        "underlay 192.0.2.2    11.90 Gbit/s   rtt 0.05 ms p50, 0.05 ms p99   loss 0.0 %",
        "overlay / underlay    0.57",
        "limited by: CPU here (daemon 98 % of a core, machine 1 % idle, cores 2)",
    ]


def test_both_directions_stand_side_by_side_each_with_its_verdict() -> None:
    found = figures()
    found.overlay.streams.append(stream("from", 11.0, IDLE))
    found.underlay.streams.append(stream("from", 11.9))
    lines = as_text(ABOUT, found, ("to", "from")).splitlines()
    assert "to 6.81 Gbit/s, from 11.00 Gbit/s" in lines[1]
    assert lines[3].endswith("0.57, 0.92")
    assert lines[4].startswith("limited by (to): CPU here (")
    assert lines[5].startswith("limited by (from): path (")


def test_a_fault_of_the_underlay_stands_in_its_row_once() -> None:
    found = figures()
    fault = "no answer on TCP: a firewall?"
    found.underlay.streams, found.underlay.faults = [], [fault, fault]
    lines = as_text(ABOUT, found, ("to",)).splitlines()
    assert lines[2].count(fault) == 1
    assert not any("overlay / underlay" in line for line in lines)
    assert "CPU here" in lines[-1]


def test_loss_of_one_direction_is_told_apart() -> None:
    found = figures()
    found.overlay.datagrams = Datagrams(100, 90, [0.001] * 90)
    assert "loss 10.0 % there, 0.0 % back" in as_text(ABOUT, found, ("to",))


def test_programs_get_keys_that_stay() -> None:
    shown = json.loads(json.dumps(as_json(ABOUT, figures(), ("to",))))
    assert list(shown) == [
        *ABOUT,
        "overlay",
        "underlay",
        "ratio",
        "limits",
    ]
    assert shown["ratio"] == {"to": 0.5723, "from": None}
    assert shown["limits"] == [
        {
            "direction": "to",
            "code": "cpu-here",
            "why": "daemon 98 % of a core, machine 1 % idle, cores 2",
        }
    ]
    assert shown["overlay"]["tcp"][0]["bits_per_second"] == 6_810_000_000


@pytest.mark.parametrize(
    ("bits", "text"),
    [(6.812e9, "6.81 Gbit/s"), (999e6, "999 Mbit/s"), (1.5e6, "1.50 Mbit/s"), (0, "0.00 Mbit/s")],
)
def test_rates_are_said_as_people_say_them(bits: float, text: str) -> None:
    assert rate(bits) == text


# -- the verb --------------------------------------------------------------------------------------


def test_help_has_an_example_and_says_what_is_sent(muslin) -> None:
    ran = muslin("bench", "--help")
    assert ran.code == 0
    assert "muslin bench node2/web --streams 4" in ran.out
    assert "1,000 a second of 200 bytes" in ran.out


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("node2", "--seconds", "0"),
        ("node2", "--streams", "0"),
        ("node2", "--direction", "up"),
        ("node2", "-o", "xml"),
    ],
)
def test_wrong_usage_is_exit_2(muslin, daemon, words: tuple[str, ...]) -> None:
    assert muslin("bench", *words).code == 2


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("node9", "nothing is called node9: nodes are: node1, node2; pods are:"),
        ("node1", "node1 is on this node: name a node, or a pod of another node"),
        ("web", "node1/web is on this node"),
        ("10.99.0.1", "no node owns 10.99.0.1"),
    ],
)
def test_a_target_that_cannot_be_measured_is_one_line(muslin, daemon, target, why) -> None:
    ran = muslin("bench", target)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"muslin: cannot measure the way to {target}: {why}")


def test_a_refusal_of_the_far_daemon_is_shown_and_the_near_one_is_free_again(
    muslin, daemon, monkeypatch
) -> None:
    monkeypatch.setattr("node.cli.bench.secrets.randbits", lambda _: 7)
    text = "its settings say bench = false"
    daemon.engine.answer = BenchAnswered(NODE2, 7, code="bench-off", text=text)
    for _ in range(2):
        ran = muslin("bench", "node2")
        assert ran.code == 1
        assert ran.err == f"muslin: cannot measure the way to node2: node2 declined: {text}\n"


def test_a_far_end_that_is_not_there_is_one_line(muslin, daemon, monkeypatch) -> None:
    monkeypatch.setattr("node.cli.bench.secrets.randbits", lambda _: 7)
    with socket.create_server(("127.0.0.1", 0)) as server:
        nothing = server.getsockname()[1]
    here = ip_address("127.0.0.1")
    daemon.engine.shot = snapshot(nodes=(node_view(1), node_view(2, address=here)))
    daemon.engine.answer = BenchAnswered(NODE2, 7, bytes(32), nothing, 0)
    monkeypatch.setattr("node.bench.near.Near._in_namespace", lambda _, make: make())
    ran = muslin("bench", "node2")
    assert ran.code == 1
    why = "127.0.0.1 cannot be reached through the overlay (connection refused on TCP)"
    assert ran.err == (
        f"muslin: cannot measure the way to node2: {why}: try muslin ping 127.0.0.1\n"
    )
