"""Whatever three nodes send each other over whatever network: the right packets, or a counted drop.

    trains -> read one by one or in runs -> Outbound -> network -> Inbound -> joined -> TUN
                                                          |
                                  loses, repeats, reorders, splits and joins reads

What is right is said by `tests.support.network`, and for super-packets by `tests.support.judge`,
which the kernel judges in `tests/netns/test_super_packets.py`.
"""

from __future__ import annotations

import random
from itertools import zip_longest

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.types import NodeId
from overlay.wire.burst import BlockKind
from tests.support.builders import TCP, UDP
from tests.support.network import Network, Weather
from tests.support.pair import ALICE, BOB
from tests.support.trains import NODES, Train, bulk_of, packets, train_of

BATCHES = [(0,), (128,), (128,), (5, 0), (0, 0, 40), (1, 9, 64), (33,)]
RATES = [0.0, 0.0, 0.0, 0.01, 0.2]
MTUS = st.tuples(*[st.sampled_from([1280, 1500, 1500, 4000, 9000])] * 3)
KINDS = [BlockKind.OFFLOADED] * 6 + [*BlockKind, 77]


def weather_of(seed: int) -> Weather:
    """Mostly fine."""
    rng = random.Random(seed)
    return Weather(
        loss=rng.choice(RATES),
        repeat=rng.choice(RATES),
        displacement=rng.choice([0, 0, 3, 40]),
        split=rng.choice([0.0, 0.0, 0.1, 1.0]),
        seed=seed,
    )


def step_of(seed: int) -> tuple:
    """Step number `seed`: something to do to a network, with what `take` needs to do it."""
    rng = random.Random(seed)
    made = [train_of(rng.getrandbits(32)) for _ in range(rng.randint(1, 4))]
    match rng.choices(["send", "forge", "carry", "connect", "disconnect"], [10, 2, 4, 1, 1])[0]:
        case "send":
            return "send", rng.choice(NODES), made, rng.choice(BATCHES), rng.random() < 0.3
        case "forge":
            cars = [(rng.choice(KINDS), rng.choice(NODES), train) for train in made[:2]]
            return "forge", rng.choice(NODES), rng.choice(NODES), cars, rng.choice([0, 0, 0, 1, 20])
        case "carry":
            return "carry", weather_of(rng.getrandbits(32))
        case verb:
            return verb, rng.randrange(3)


# A step is drawn as one number. Drawn field by field, hypothesis would try small and plain ones
# nearly always, and hardly anything would ever be joined.
SEEDS = st.integers(0, (1 << 32) - 1)
STEPS = SEEDS.map(step_of)
WEATHERS = SEEDS.map(weather_of)


def together(node: NodeId, found: list[Train], *, mixed: bool) -> list[bytes]:
    """The packets of some trains: one train behind the other, or a packet of each in turn."""
    made = [list(packets(train, node)) for train in found]
    if not mixed:
        return [frame for one in made for frame in one]
    return [frame for turn in zip_longest(*made) for frame in turn if frame is not None]


def take(network: Network, step) -> None:
    match step:
        case "send", node, found, batches, mixed:
            network.send(node, together(node, found, mixed=mixed), batches)
        case "forge", node, peer, made, tail:
            if node != peer:
                bodies = [
                    (kind, frame)
                    for kind, sender, train in made
                    for frame in packets(train, sender)
                ]
                network.forge(node, peer, bodies, tail)
        case "carry", weather:
            network.carry(weather)
        case "connect", number:
            network.connect(number)
        case "disconnect", number:
            network.disconnect(number)


@settings(max_examples=250)
@given(
    steps=st.lists(STEPS, min_size=4, max_size=12),
    last=WEATHERS,
    mtus=MTUS,
    up=st.sampled_from([*[(0, 1, 2)] * 5, (2, 0), (1,), ()]),
    coalesce=st.sampled_from([True, True, True, False]),
    refusing=st.sampled_from([0, 0, 1, 2]),
)
def test_the_right_packets_come_out_or_a_counted_drop(
    steps, last, mtus, up, coalesce, refusing
) -> None:
    network = Network(mtus=mtus, coalesce=coalesce, refusing=refusing)
    for number in up:
        network.connect(number)
    for step in steps:
        take(network, step)
    network.carry(last)
    network.judge()


@settings(max_examples=600)
@given(
    st.lists(SEEDS, min_size=1, max_size=4),
    st.sampled_from(BATCHES),
    st.sampled_from([1280, 9000]),
)
def test_runs_that_are_nearly_one_flow_come_out_as_they_went_in(seeds, batches, mtu) -> None:
    # Hypothesis likes to draw the same number twice.
    made = [bulk_of(seed + (place << 32)) for place, seed in enumerate(seeds)]
    network = Network(mtus=(mtu, mtu, mtu), coalesce=True)
    network.connect(0)
    network.send(ALICE, together(ALICE, made, mixed=False), batches)
    network.carry(Weather())
    network.judge()


def test_runs_that_are_one_flow_come_out_in_few_writes() -> None:
    """That the properties are about something: what they compare has been joined."""
    for version in (4, 6):
        for protocol in (TCP, UDP):
            network = Network(mtus=(1500, 1500, 1500), coalesce=True)
            network.connect(0)
            train = Train(version=version, protocol=protocol, count=128)
            network.send(ALICE, list(packets(train, ALICE)), (128,))
            network.carry(Weather())
            network.judge()
            assert len(network.nodes[BOB].writes) == 2
