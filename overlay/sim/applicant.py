"""A machine that is not a member yet: it has a token and runs the join exchange.

    token --> Applicant --(over the underlay)--> the authority's node
                  |
                  +-- done --> `admitted(outcome)`: the world makes a member machine of it
                  '-- failed --> `failure`

What `muslin join` does with sockets, this does with the simulated network.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from overlay.effects import Effect, SendDatagram
from overlay.errors import RefusedError
from overlay.joining import Joiner, JoinOutcome
from overlay.keys import SigningKey, StaticKey
from overlay.sim.clock import Alarm
from overlay.sim.link import Lost, cut
from overlay.sim.site import Site
from overlay.types import Endpoint
from overlay.wire.certificate import Identity
from overlay.wire.token import JoinToken

Admitted = Callable[[Identity, JoinOutcome], None]


class Applicant:
    """One machine that tries to join. Starts at once.

    Args:
        name: the node name it asks for, and its name in the world.
        endpoint: its underlay address.
        site: the world it is in.
        token: the line that `muslin token` prints.
        seed: of its keys; another one for each attempt, as real ones are drawn.
        make_key: makes its signing key.
        admitted: called with what it needs to be a member.

    Attributes:
        failure: why it was not admitted; None while it tries, and when it was.
    """

    def __init__(
        self,
        *,
        name: str,
        endpoint: Endpoint,
        site: Site,
        token: str,
        seed: str,
        make_key: Callable[[bytes], SigningKey],
        admitted: Admitted,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.failure: RefusedError | None = None
        self._site = site
        self._admitted: Admitted | None = admitted
        self._alarm: Alarm | None = None
        entropy = random.Random(f"{seed}/{name}")
        self._signing = make_key(entropy.randbytes(32))
        self._static = StaticKey(entropy.randbytes(32))
        self._joiner = Joiner(
            token=JoinToken.parse(token),
            signing=self._signing,
            static=self._static,
            name=name,
            settings=site.settings,
            entropy=entropy.randbytes,
            rng=entropy,
            epoch=site.epoch,
        )
        site.underlay.attach(name, endpoint, self._receive)
        self._perform(self._joiner.start(site.clock.now))

    def _receive(self, buffer: bytes, segment_size: int, source: Endpoint) -> Lost | None:
        for datagram in cut(buffer, segment_size):
            now = self._site.clock.now
            self._perform(self._joiner.on_datagram_untrusted(datagram, source, now))
        return None

    def _wake(self) -> None:
        self._perform(self._joiner.on_deadline(self._site.clock.now))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert isinstance(effect, SendDatagram), effect
            self._site.underlay.send(
                self.name, self.endpoint, effect.endpoint, effect.datagram, effect.segment_size
            )
        if self._alarm is not None:
            self._alarm.cancel()
        deadline = self._joiner.next_deadline()
        self._alarm = None if deadline is None else self._site.clock.at(deadline, self._wake)
        if self._joiner.finished:
            self._finish()

    def _finish(self) -> None:
        admitted, self._admitted = self._admitted, None
        if admitted is None:
            return
        note, now = self._site.trace.note, self._site.clock.now
        outcome, self.failure = self._joiner.outcome, self._joiner.failure
        if outcome is not None:
            note("join.admitted", self.name, {}, now)
            admitted(Identity(self._signing, self._static, outcome.certificate), outcome)
        elif self.failure is not None:
            note("join.failed", self.name, {"code": self.failure.code}, now)
