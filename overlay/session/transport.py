"""Keypairs: the two keys of one finished handshake, and what may be done with them.

    this node                                              remote node
    +-----------------------------+                        +-----------------------------+
    | seal: key out, next counter | == remote_index ====>  | open: key in, replay window |
    | open: key in, replay window | <==== local_index ==   | seal: key out, next counter |
    +-----------------------------+                        +-----------------------------+

Each end chooses the index by which the other addresses its bursts. A keypair lives until
`expires_at` or until its counter reaches `REJECT_COUNTER`; it never gets new keys: a rekey makes
another keypair beside it (`overlay.session.peer`).

This is the packet path: `seal_into` and `open_into` are one call of the library each, write into
the caller's buffer, and may run in place (`out` starting where the input starts).

References:
    WireGuard paper (Donenfeld 2017), sections 5.4.6 and 6.2.
    draft-irtf-cfrg-aead-limits, single-key limits: 180 s at 10 Gbit/s are less than 2^34 blocks
    of AES, which gives an attacker on AES-GCM an advantage of 2^-61 at most.
"""

from __future__ import annotations

from typing import ClassVar, Final

from cryptography.exceptions import InvalidTag

from overlay.drops import DropReason
from overlay.errors import AuthError, CapacityError
from overlay.session.replay import REJECT_COUNTER, ReplayWindow
from overlay.session.suites import NONCE_SIZE, Buffer, lane_key, make_aead, transport_key
from overlay.types import NodeId
from overlay.wire.handed import (
    BOOL,
    BYTES,
    INT,
    SECONDS,
    Handed,
    Values,
    each,
    maybe,
    member,
    packed,
    pair,
    part,
    row,
)
from overlay.wire.handshake import Suite

# -- specification ---------------------------------------------------------------------------------

REKEY_COUNTER: Final = 1 << 24
"""Bursts in one direction after which a keypair is replaced, however young it is. A burst has at
most 2^12 blocks of AES, so that is 2^36, which gives an attacker 2^-57 at most: what TLS 1.3 allows
its records (RFC 8446, section 5.5)."""


def lane_byte(sender: int, receiver: int) -> int:
    """The lane byte of a datagram between two lanes, 0 to 15 each."""
    return sender << 4 | receiver


class Keypair:
    """Transport keys of one handshake, with the counters of both directions.

    Its `repr` shows no keys (it is the default one). Only keys derived for other lanes are ever
    given out, to the process that is that lane.

    Args:
        split: the keys for sending and for receiving, as Noise's Split() returned them to this
            end.
        lane: see below.

    Attributes:
        local_index: by which the remote end addresses us.
        remote_index: by which we address the remote end.
        node: the remote node; None while it is a joiner without a certificate.
        joiner: the node id a joiner claims, proved only by what it signs later; else None.
        joiner_token: the token a joiner showed; else None.
        joiner_static: the static key a joiner's handshake proved; else None.
        initiator: whether this end sent the initiation.
        confirmed: whether the remote end has proved that it holds the keys. An initiator knows
            from the response; a responder learns it from the first burst that opens.
        lane: the lane byte of what it seals: our lane << 4 | the remote end's. 0 is the keypair of
            the handshake itself; others were derived from one by `for_lanes`.
        counter: the counter of the next burst to send, hence also how many were sent.
        replay: which counters of the remote end were accepted. `open_into` does not touch it.
        bad_tags: bursts that did not verify: forged, or damaged on the way.
    """

    __slots__ = (
        "_open",
        "_seal",
        "_split",
        "bad_tags",
        "confirmed",
        "counter",
        "created_at",
        "expires_at",
        "initiator",
        "joiner",
        "joiner_static",
        "joiner_token",
        "lane",
        "local_index",
        "node",
        "remote_index",
        "replay",
        "suite",
    )

    HANDED: ClassVar = Handed(
        _split=row(pair, BYTES, BYTES),
        suite=member(Suite),
        **dict.fromkeys(("local_index", "remote_index", "lane"), INT),
        **dict.fromkeys(("initiator", "confirmed"), BOOL),
        **dict.fromkeys(("created_at", "expires_at"), SECONDS),
        **dict.fromkeys(("node", "joiner", "joiner_token", "joiner_static"), maybe(BYTES)),
        **dict.fromkeys(("counter", "bad_tags"), INT),
        replay=part(ReplayWindow),
    )

    def __init__(
        self,
        split: tuple[bytes, bytes],
        *,
        suite: Suite,
        local_index: int,
        remote_index: int,
        initiator: bool,
        created_at: float,
        expires_at: float,
        node: NodeId | None = None,
        joiner: NodeId | None = None,
        joiner_token: bytes | None = None,
        joiner_static: bytes | None = None,
        lane: int = 0,
    ) -> None:
        send, receive = self._split = split
        self._seal = make_aead(suite, transport_key(send, suite)).encrypt_into
        self._open = make_aead(suite, transport_key(receive, suite)).decrypt_into
        self.suite = suite
        self.local_index = local_index
        self.remote_index = remote_index
        self.initiator = initiator
        self.created_at = created_at
        self.expires_at = expires_at
        self.node = node
        self.joiner = joiner
        self.joiner_token = joiner_token
        self.joiner_static = joiner_static
        # A burst between other lanes proves the keys, too, but only lane 0 acts on the proof.
        self.confirmed = initiator or lane != 0
        self.lane = lane
        self.counter = 0
        self.replay = ReplayWindow()
        self.bad_tags = 0

    def lane_split(self, local: int, remote: int) -> tuple[bytes, bytes]:
        """The keys for sending and receiving between our lane `local` and their lane `remote`.

        Args:
            local: 0 to 15.
            remote: 0 to 15, not both 0.
        """
        send, receive = self._split
        return lane_key(send, local, remote), lane_key(receive, remote, local)

    def for_lanes(self, local: int, remote: int) -> Keypair:
        """The keypair between our lane `local` and their lane `remote`: new keys, new counters.

        To be made once per pair and process: it counts from 0.
        """
        return Keypair(
            self.lane_split(local, remote),
            suite=self.suite,
            local_index=self.local_index,
            remote_index=self.remote_index,
            initiator=self.initiator,
            created_at=self.created_at,
            expires_at=self.expires_at,
            node=self.node,
            lane=lane_byte(local, remote),
        )

    def usable(self, now: float) -> bool:
        """Whether bursts may still be sent and accepted under this keypair."""
        return now < self.expires_at and self.counter < REJECT_COUNTER

    @property
    def worn(self) -> bool:
        """Whether so many bursts were sealed with it, in either direction, that it is replaced.

        The initiator should act: the other end waits for a quarter more, so that not both do.
        """
        most = REKEY_COUNTER if self.initiator else REKEY_COUNTER * 5 // 4
        return self.counter >= most or self.replay.highest >= most

    def next_counter(self) -> int:
        """Take the counter for one burst; each is given out once.

        Raises:
            CapacityError: the keypair is used up. Nothing else.
        """
        counter = self.counter
        if counter >= REJECT_COUNTER:
            raise CapacityError("the keypair is used up; it must be replaced", "counter")
        self.counter = counter + 1
        return counter

    def seal_into(self, counter: int, plaintext: Buffer, aad: Buffer, out: Buffer) -> int:
        """Encrypt `plaintext` into `out`.

        Args:
            counter: from `next_counter`, never used before.
            plaintext: the blocks of one burst.
            aad: the outer header with its index zeroed.
            out: writable, exactly 16 bytes longer than `plaintext`; may start at the same byte.

        Returns:
            Bytes written: the length of `out`.
        """
        return self._seal(counter.to_bytes(NONCE_SIZE, "big"), plaintext, aad, out)

    def open_into(self, counter: int, ciphertext: Buffer, aad: Buffer, out: Buffer) -> int:
        """Decrypt `ciphertext` into `out`. Ask `replay.check` before, `replay.accept` after.

        Args:
            counter: 0 <= counter < 2**64, from the outer header.
            ciphertext: all segments of one burst, tag included.
            aad: the outer header with its index zeroed.
            out: writable, exactly 16 bytes shorter than `ciphertext`; may start at the same
                byte.

        Returns:
            Bytes written: the length of `out`.

        Raises:
            AuthError: the tag does not verify (BAD_TAG); what is in `out` must not be used.
                Nothing else.
        """
        try:
            return self._open(counter.to_bytes(NONCE_SIZE, "big"), ciphertext, aad, out)
        except InvalidTag as error:
            self.bad_tags += 1
            raise AuthError("a burst that does not verify", DropReason.BAD_TAG) from error

    def spend(self) -> None:
        """Another process has it now: nothing is sealed or opened with it here any more."""
        self.counter, self.expires_at = REJECT_COUNTER, float("-inf")


def _make(values: Values) -> Keypair:
    split, suite = values["_split"], values["suite"]
    keypair = Keypair(
        split,
        suite=suite,
        local_index=0,
        remote_index=0,
        initiator=False,
        created_at=0.0,
        expires_at=0.0,
    )
    Keypair.HANDED.put(keypair, values)
    return keypair


KEYPAIR: Final = packed(each(Keypair.HANDED, _make))
"""How a keypair is handed over: with its keys, its counter and its window."""
