"""Nobody outside can stop a node: floods of a second or two, against a real daemon.

    scripts/hostile          the same for as long as it takes to give figures

What is counted is exact: answers, deliveries, looks at handshakes. What takes time is compared with
the same a moment before, and the bounds are generous: a machine that runs tests has other things to
do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import pytest

from overlay.drops import DropReason
from overlay.errors import AuthError
from overlay.session.ratelimit import ANY_COOKIES, ANY_TURNS, CALM, FAIR_COOKIES, FAIR_TURNS
from tests.overlay.session.test_gate import shown_by_a_stranger
from tests.support.clusters import make_identity
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE
from tests.support.session_net import CLUSTER, STRANGER, Network
from tests.support.siege import Siege, besieged, finish, ratio
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone]

RATE = 10_000
"""Datagrams a second."""
WORTHWHILE = 0.05
"""Of the goodput without an attack. `scripts/hostile` wants 0.8 where there is nothing else to do;
where the daemon gets a third of a processor, what a flood costs is three times as much of that."""
SHORT = 1.5
"""Seconds of one round."""
CHEAP = 10.0
"""Times the processor time of a datagram of an unknown type. One X25519 operation is as much."""
UNASKED = 2 * 200
"""Initiations that are looked at before there is a load, which may take parts of two seconds."""


@pytest.fixture(scope="module")
def siege(_clean_machine: None) -> Iterator[Siege]:
    with besieged() as made:
        yield made


def test_hostile_datagrams_get_no_answer_deliver_nothing_and_hold_no_memory(
    siege: Siege, rng: random.Random
) -> None:
    packets = siege.from_one(siege.hostile(10_000, rng))
    siege.flood(packets, rate=RATE, count=10_000)  # what is made once is made
    siege.settled()
    rss, answers, delivered = siege.rss, siege.answers, siege.delivered
    before, overflowed = siege.drops, siege.overflowed
    flood = siege.flood(packets, rate=0, count=50_000)
    siege.settled()
    lost = siege.drops - before
    counted = sum(lost[reason] for reason in INBOUND) + siege.overflowed - overflowed
    # The queues of a link may lose some as well; and a full one some that the other node sent.
    assert 0.9 * flood.sent < counted < 1.01 * flood.sent
    assert siege.answers == answers
    assert siege.delivered == delivered
    assert siege.rss - rss < 1 << 20
    assert siege.target.problems() == set()


def test_a_stream_goes_on_beside_hostile_datagrams(siege: Siege, rng: random.Random) -> None:
    packets = siege.from_one(siege.hostile(10_000, rng))
    answers = siege.answers
    assert ratio(*siege.rounds(packets, rate=RATE, seconds=SHORT, count=3)) > WORTHWHILE
    assert siege.answers == answers


@pytest.mark.parametrize("sources", ["one", "many"])
@pytest.mark.parametrize("cookies", [False, True], ids=["forged", "real"])
def test_a_handshake_flood_gets_its_turns_and_no_more(
    siege: Siege, rng: random.Random, sources: str, cookies: bool
) -> None:
    made = siege.initiations(10_000 if sources == "many" else 1, rng)
    packets = siege.from_many(made) if sources == "many" else siege.from_one(made)
    before, rss, answers = siege.drops, siege.rss, siege.answers
    with siege.flooding(packets, rate=RATE, count=2 * RATE, cookies=cookies) as running:
        eventually(lambda: "under-load" in siege.target.problems(), within=PATIENCE)
        flood = finish(running)
    siege.settled()
    lost = siege.drops - before
    # Two seconds touch three. The last of it may be read when nothing is sent any more.
    seconds = int(time.monotonic() - flood.began) + 2
    turns = FAIR_TURNS // 2 * (sources == "many") + ANY_TURNS
    assert lost[DropReason.BAD_HANDSHAKE] <= UNASKED + seconds * turns
    answered = siege.answers - answers
    assert answered == lost[DropReason.UNDER_LOAD]
    assert answered <= seconds * (FAIR_COOKIES // 2 + ANY_COOKIES)
    assert (flood.cookies > 0) == cookies
    assert lost[DropReason.RATE_LIMITED] > flood.sent / 4
    assert siege.rss - rss < 10 << 20


def test_a_handshake_flood_costs_little_and_a_stream_goes_on_beside_it(
    siege: Siege, rng: random.Random
) -> None:
    packets = siege.from_many(siege.initiations(10_000, rng))
    noise = siege.from_many([b"\xff" + bytes(400)] * 10_000)
    costs: list[list[float]] = [[], []]
    for number in range(6):
        began = siege.cpu
        siege.flood((noise, packets)[number % 2], rate=RATE, count=RATE)
        siege.settled()
        costs[number % 2].append(siege.cpu - began)
    assert median(costs[1]) / median(costs[0]) < CHEAP
    assert ratio(*siege.rounds(packets, rate=RATE, seconds=SHORT, count=3)) > WORTHWHILE


def test_a_new_node_joins_during_the_flood_and_the_load_ends_with_it(
    siege: Siege, rng: random.Random
) -> None:
    """From 10,000 addresses that show cookies, which is the worst of them."""
    eventually(lambda: "under-load" not in siege.target.problems(), within=4.0 * CALM)
    begun, ended = siege.reports("load.begun"), siege.reports("load.ended")
    packets = siege.from_many(siege.initiations(10_000, rng))
    with siege.flooding(packets, rate=RATE, count=1000 * RATE, cookies=True):
        eventually(lambda: "under-load" in siege.target.problems(), within=PATIENCE)
        eventually(lambda: joined(siege), within=PATIENCE)
        assert "under-load" in siege.target.problems()
    eventually(lambda: "under-load" not in siege.target.problems(), within=4.0 * CALM)
    assert siege.reports("load.begun") == begun + 1
    assert siege.reports("load.ended") == ended + 1


def joined(siege: Siege) -> bool:
    """Whether the newcomer is a member; who was not heard is told to try again."""
    siege.newcomers[0].joins(siege.target)
    return True


def test_refusing_takes_as_long_whoever_is_meant() -> None:
    """A stranger shows a member's certificate, or one that was never issued; it has none itself."""
    member = Network().add(2)
    gate = member.sessions._gate
    known = make_identity(3, CLUSTER).certificate
    gate._read_certificate(known.encode())  # so it is remembered
    shown = [
        shown_by_a_stranger(member, certificate.encode())
        for certificate in (known, replace(known, serial=99))
    ]
    times: list[list[float]] = [[], []]
    for number in range(300):
        which = number % 2
        began = time.perf_counter()
        with pytest.raises(AuthError):
            gate.admit_untrusted(shown[which], STRANGER, 0.0)
        times[which].append(time.perf_counter() - began)
    assert 0.85 < median(times[0]) / median(times[1]) < 1.18


INBOUND = (
    DropReason.TRUNCATED,
    DropReason.UNKNOWN_TYPE,
    DropReason.BAD_HEADER,
    DropReason.UNKNOWN_INDEX,
    DropReason.REPLAYED,
    DropReason.BAD_TAG,
    DropReason.BAD_HANDSHAKE,
    DropReason.REASSEMBLY_FULL,
    DropReason.REASSEMBLY_EXPIRED,
    DropReason.DUPLICATE_SEGMENT,
)
"""What can become of a hostile datagram."""
