"""Joining over real sockets on the loopback interface, with a real engine as the member."""

from __future__ import annotations

import os
import random
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from node.founding import found_node
from node.io.udp import UdpSocket
from node.joiner import join, read_token
from overlay.catalog.trust import Trust
from overlay.config import Settings, Timing
from overlay.effects import Effect, SendDatagram
from overlay.engine import Engine
from overlay.errors import ConfigError, RefusedError
from overlay.types import Endpoint
from overlay.wire.token import JoinToken

HASTY = Settings(timing=Timing(handshake_give_up=0.3))


class Member:
    """The founding node, served from a thread of its own."""

    def __init__(self) -> None:
        self.node = found_node(
            "vm1",
            cidr=ip_network("10.244.0.0/16"),
            cidr6=None,
            block_prefix=24,
            entropy=os.urandom,
            wall=time.time(),
        )
        self.udp = UdpSocket(Endpoint("127.0.0.1", 0))
        self.engine = Engine(
            identity=self.node.identity,
            cluster=self.node.cluster,
            psk=self.node.psk,
            state=self.node.state,
            settings=Settings(),
            entropy=os.urandom,
            rng=random.Random(1),
            epoch=time.time() - time.monotonic(),
            endpoints=(self.udp.local,),
            deliver=lambda _: True,
            transmit=self.udp.send,
            authorities=self.node.authorities,
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.serve)

    def token(self, ttl: float = 60.0) -> JoinToken:
        return JoinToken.parse(self.engine.mint_token(ttl, time.monotonic())[0])

    def serve(self) -> None:
        self.send(self.engine.start(time.monotonic()))
        while not self.stop.is_set():
            select.select([self.udp.fileno()], [], [], 0.02)
            while (received := self.udp.receive()) is not None:
                self.send(self.engine.on_datagrams(*received, time.monotonic()))
            self.send(self.engine.on_deadline(time.monotonic()))

    def send(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendDatagram):
                datagram = memoryview(effect.datagram)
                self.udp.send(effect.endpoint, datagram, effect.segment_size)


@pytest.fixture
def member() -> Iterator[Member]:
    made = Member()
    tokens = [made.token() for _ in range(2)]  # the engine belongs to its thread from now on
    made.tokens = tokens
    made.thread.start()
    yield made
    made.stop.set()
    made.thread.join()
    made.udp.close()


def test_a_joined_node_is_whole_and_of_the_members_cluster(member) -> None:
    node = join(member.tokens[0], "vm2", entropy=os.urandom)
    assert node.cluster == member.node.cluster
    assert node.psk == member.node.psk
    assert node.authorities == ()
    assert node.identity.name == "vm2"
    Trust.founded(node.cluster).check_certificate(node.certificate, time.time())
    assert node.certificate.node == node.keys.signing.public
    assert node.state.items


def test_a_token_admits_one_node_and_a_name_is_given_once(member) -> None:
    join(member.tokens[0], "vm2", entropy=os.urandom)
    with pytest.raises(RefusedError) as caught:
        join(member.tokens[0], "vm3", entropy=os.urandom)
    assert caught.value.code == "token-used"
    with pytest.raises(RefusedError) as caught:
        join(member.tokens[1], "vm1", entropy=os.urandom)
    assert caught.value.code == "name-taken"


def test_an_endpoint_that_does_not_answer_is_passed_over(member) -> None:
    with UdpSilence() as silent:
        endpoints = (silent.local, *member.tokens[0].endpoints)
        join(replace(member.tokens[0], endpoints=endpoints), "vm2", entropy=os.urandom)


def test_nobody_there_is_refused_naming_who_was_tried(member) -> None:
    with UdpSilence() as silent:
        token = replace(member.tokens[0], endpoints=(silent.local,))
        with pytest.raises(RefusedError) as caught:
            join(token, "vm2", entropy=os.urandom, settings=HASTY)
    assert caught.value.code == "no-answer"
    assert str(silent.local) in str(caught.value)


class UdpSilence:
    """A socket that takes everything and says nothing."""

    def __enter__(self) -> UdpSocket:
        self.udp = UdpSocket(Endpoint("127.0.0.1", 0))
        return self.udp

    def __exit__(self, *_: object) -> None:
        self.udp.close()


def test_a_token_is_judged_before_anything_is_sent(member) -> None:
    token = member.tokens[0]
    assert read_token(f" {token}\n", wall=time.time()) == token
    with pytest.raises(RefusedError) as caught:
        read_token(str(token), wall=time.time() + 61)
    assert caught.value.code == "token-expired"
    with pytest.raises(ConfigError, match="damaged"):
        read_token(str(token)[:-1], wall=0)
    with pytest.raises(ConfigError, match="not a join token"):
        read_token("hello", wall=0)
