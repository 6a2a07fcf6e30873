"""Tests of the network between simulated machines."""

from __future__ import annotations

from overlay.sim.clock import Clock
from overlay.sim.link import Link, Lost
from overlay.sim.nat import Nat, NatKind
from overlay.sim.trace import Trace
from overlay.sim.underlay import Underlay
from overlay.types import Endpoint

A, B = Endpoint("198.18.0.1", 6875), Endpoint("198.18.0.2", 6875)


class Wires:
    """Two machines that keep what they read."""

    def __init__(self, link: Link | None = None) -> None:
        self.clock = Clock()
        self.trace = Trace()
        self.underlay = Underlay(
            seed="1", clock=self.clock, trace=self.trace, link=link or Link(latency=0.1)
        )
        self.read: list[tuple[float, bytes, int, Endpoint]] = []
        self.refusal: Lost | None = None
        self.underlay.attach("a", A, self._receive)
        self.underlay.attach("b", B, self._receive)

    def _receive(self, buffer: bytes, segment_size: int, source: Endpoint) -> Lost | None:
        self.read.append((self.clock.now, buffer, segment_size, source))
        return self.refusal

    def send(self, burst: bytes = b"hello", segment_size: int = 0, to: Endpoint = B) -> None:
        self.underlay.send("a", A, to, burst, segment_size)

    def losses(self) -> list[object]:
        return [note.fields["why"] for note in self.trace.notes("datagram.lost")]


def test_a_datagram_arrives_after_the_latency_with_its_source():
    wires = Wires()
    wires.send()
    wires.clock.run(1.0)
    assert wires.read == [(0.1, b"hello", 0, A)]


def test_a_burst_arrives_as_datagrams():
    wires = Wires()
    wires.send(b"aabbc", 2)
    wires.clock.run(1.0)
    assert [buffer for _, buffer, _, _ in wires.read] == [b"aa", b"bb", b"c"]


def test_a_link_of_its_own_replaces_the_common_one_both_ways():
    wires = Wires()
    wires.underlay.set_link("b", "a", Link(latency=0.3))
    wires.send()
    wires.clock.run(1.0)
    assert wires.read[0][0] == 0.3


def test_nothing_passes_a_cut_and_everything_after_it_healed():
    wires = Wires()
    wires.underlay.cuts.cut("a", "b")
    wires.send(b"during")
    wires.underlay.cuts.heal("a", "b")
    wires.send(b"after")
    wires.clock.run(1.0)
    assert [buffer for _, buffer, _, _ in wires.read] == [b"after"]


def test_what_is_under_way_when_the_cut_comes_is_lost():
    wires = Wires()
    wires.send()
    wires.clock.run(0.05)
    wires.underlay.cuts.cut("a", "b")
    wires.clock.run(1.0)
    assert wires.read == []
    assert wires.losses() == ["cut"]


def test_a_datagram_to_an_address_nobody_has_is_lost_and_traced():
    wires = Wires()
    wires.send(to=Endpoint("198.18.0.9", 1))
    wires.clock.run(1.0)
    assert wires.read == []
    assert '"lost":"nowhere"' in next(wires.trace.lines())


def test_what_the_machine_did_not_take_is_traced_with_its_reason():
    wires = Wires()
    wires.refusal = Lost.DOWN
    wires.send()
    wires.clock.run(1.0)
    assert wires.losses() == ["down"]


def test_traffic_between_two_machines_does_not_change_the_fate_of_others():
    def fates(*, chatter: bool) -> list[float]:
        wires = Wires(Link(latency=0.1, jitter=0.1, loss=0.3))
        for _ in range(20):
            if chatter:
                wires.underlay.send("b", B, A, b"noise", 0)
            wires.send()
        wires.clock.run(1.0)
        return [at for at, buffer, _, _ in wires.read if buffer == b"hello"]

    assert fates(chatter=False) == fates(chatter=True)


def test_nothing_arrives_at_an_address_that_was_given_up():
    wires = Wires()
    wires.send()
    wires.underlay.detach(B)
    wires.clock.run(1.0)
    assert wires.read == []
    assert wires.losses() == ["nowhere"]


def test_what_was_said_last_of_a_link_holds():
    wires = Wires(Link(latency=0.1))
    group = {"a"}
    wires.underlay.set_links(group, ["b"], Link(latency=0.2))
    wires.send()
    wires.underlay.set_link("b", "a", Link(latency=0.3))
    wires.send()
    wires.underlay.set_all_links(Link(latency=0.4))
    wires.send()
    wires.clock.run(1.0)
    assert [at for at, *_ in wires.read] == [0.2, 0.3, 0.4]


def test_who_joins_a_group_later_gets_its_links():
    wires = Wires(Link(latency=0.1))
    group: set[str] = set()
    wires.underlay.set_links(group, ["b"], Link(latency=0.2))
    group.add("a")
    wires.send()
    wires.clock.run(1.0)
    assert [at for at, *_ in wires.read] == [0.2]


PRIVATE = Endpoint("172.16.0.1", 6875)
PRIVATE_OTHER = Endpoint("172.16.0.2", 6875)


class Home(Wires):
    """`a` and `b` as ever; `c` and `d` behind one NAT."""

    def __init__(self, kind: NatKind = NatKind.PORT_RESTRICTED) -> None:
        super().__init__()
        self.nat = Nat("nat", "198.18.0.7", kind)
        for name, endpoint in (("c", PRIVATE), ("d", PRIVATE_OTHER)):
            self.underlay.put_behind(endpoint, self.nat)
            self.underlay.attach(name, endpoint, self._receive)

    def pass_on(self, name: str, source: Endpoint, to: Endpoint) -> Endpoint | None:
        """Whom the reader sees as the source of one datagram; None if it does not arrive."""
        self.read.clear()
        self.underlay.send(name, source, to, b"hello", 0)
        self.clock.run(self.clock.now + 1.0)
        return self.read[0][3] if self.read else None


def test_a_machine_behind_a_nat_reaches_others_and_is_answered_at_its_public_address():
    home = Home()
    public = home.pass_on("c", PRIVATE, A)
    assert public is not None
    assert public.host == "198.18.0.7"
    assert home.pass_on("a", A, public) == A
    assert home.pass_on("b", B, public) is None
    fates = [entry.fate.lost for entry in home.trace._entries]
    assert fates == [None, None, Lost.FILTERED]


def test_private_addresses_are_for_neighbours_only_and_there_is_no_hairpin():
    home = Home(NatKind.FULL_CONE)
    assert home.pass_on("c", PRIVATE, PRIVATE_OTHER) == PRIVATE
    assert home.pass_on("a", A, PRIVATE) is None
    public = home.pass_on("d", PRIVATE_OTHER, A)
    assert home.pass_on("c", PRIVATE, public) is None
