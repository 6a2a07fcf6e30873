"""The handshake in Muslin's messages: the initiator's half and the responder's half.

    initiator                                                          responder
      Attempt ------- initiation: index, certificate or token -------->  read_initiation_untrusted
                                                                         (the caller decides)
      .finish_untrusted <------- response: index, cipher, address -----  answer
      Keypair                                                            Keypair, not confirmed

An `Attempt` is one initiation and the wait for its response. A repeated initiation is another
attempt, with a fresh ephemeral key and index: there is nothing to gain from sending the same bytes
again, since the responder must refuse them as a replay.

Nothing here keeps state for a peer, so a joining process uses the same two halves as a member.

References:
    WireGuard paper (Donenfeld 2017), sections 5.4.2 and 5.4.3.
    Noise Protocol Framework, revision 34, section 7.5 (IK) and section 9 (psk2).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Final

from overlay.drops import DropReason
from overlay.errors import AuthError
from overlay.keys import KEY_SIZE, StaticKey
from overlay.session.noise import MUSLIN, Handshake
from overlay.session.transport import Keypair
from overlay.types import Endpoint, Entropy, NodeId
from overlay.wire.handshake import (
    ENC_STATIC_SIZE,
    Hello,
    Initiation,
    Response,
    ResponsePayload,
    RevokedPayload,
    StalePayload,
    Suite,
    decode_hello_untrusted,
    decode_response_payload_untrusted,
)


class AnsweredError(AuthError):
    """An initiation that makes no session, but gets an answer that only whoever made it can read.

    Nothing is kept of it: it may be a replay.

    Attributes:
        answer: the encoded response, macs included.
    """

    def __init__(self, message: str, reason: DropReason, answer: bytes) -> None:
        super().__init__(message, reason)
        self.answer = answer


class StaleError(AnsweredError):
    """One whose stamp is not newer than the last one accepted from its member.

    It may be from a machine that does not know how far its own stamps had come, because its state
    is from a backup.
    """

    def __init__(self, answer: bytes) -> None:
        what = "an initiation that is not newer than the last"
        super().__init__(what, DropReason.REPLAYED, answer)


class RevokedError(AuthError):
    """A certificate of a node that was removed: perhaps it was off then, and does not know.

    Attributes:
        proof: the authority's word.
    """

    def __init__(self, proof: bytes) -> None:
        super().__init__("a certificate that was revoked", DropReason.BAD_CERTIFICATE)
        self.proof = proof


PROLOGUE: Final = b"muslin 1"
"""Hashed into every handshake, so that versions that would not understand each other cannot meet
by accident."""


class Attempt:
    """One initiation of ours, and what is needed to read its response.

    Args:
        static: our static key.
        remote_static: the responder's public key.
        psk: 32 bytes, the cluster's key or a token's secret.
        hello: what we say of ourselves.
        index: by which the responder shall address us.
        entropy: makes the ephemeral key.

    Attributes:
        index: as given.
        datagram: the encoded initiation, MACs still missing.

    Raises:
        AuthError: `remote_static` is of low order. Nothing else.
    """

    __slots__ = ("_noise", "_offered", "datagram", "index")

    def __init__(
        self,
        *,
        static: StaticKey,
        remote_static: bytes,
        psk: bytes,
        hello: Hello,
        index: int,
        entropy: Entropy,
    ) -> None:
        self.index = index
        self._offered = hello.suites
        self._noise = Handshake(
            MUSLIN, static, prologue=PROLOGUE, remote_static=remote_static, psk=psk
        )
        message = self._noise.write(hello.encode(), entropy)
        sealed_at = KEY_SIZE + ENC_STATIC_SIZE
        self.datagram = Initiation(
            sender=index,
            ephemeral=message[:KEY_SIZE],
            enc_static=message[KEY_SIZE:sealed_at],
            enc_payload=message[sealed_at:],
        ).encode()

    def finish_untrusted(
        self, response: Response, *, node: NodeId, now: float, expires_at: float
    ) -> tuple[Keypair, Endpoint] | StalePayload | RevokedPayload:
        """The keypair, and our address as the responder saw it; or why there is none.

        Error contract: after an error the attempt is as it was; the right response may still
        come.

        Args:
            response: its receiver is our index.
            node: whose static key the attempt was made for.
            now: monotonic seconds.
            expires_at: when the keypair shall end.

        Raises:
            AuthError: it does not verify, or chooses a cipher we did not offer.
            WireError: what is in it does not parse. Nothing else.
        """
        noise = copy(self._noise)
        payload = decode_response_payload_untrusted(
            noise.read_untrusted(response.ephemeral + response.enc_payload)
        )
        if not isinstance(payload, ResponsePayload):
            return payload
        if payload.suite not in self._offered:
            raise AuthError(f"the response chooses cipher {payload.suite}, which was not offered")
        keypair = Keypair(
            noise.split(),
            suite=Suite(payload.suite),
            local_index=self.index,
            remote_index=response.sender,
            initiator=True,
            created_at=now,
            expires_at=expires_at,
            node=node,
        )
        return keypair, payload.observed


@dataclass(frozen=True, slots=True)
class Received:
    """An initiation that decrypted. Who sent it, and whether we want it, is still to be decided."""

    message: Initiation
    hello: Hello
    remote_static: bytes
    """The sender's static key; it has proved that it holds the private half."""
    noise: Handshake = field(repr=False)


def read_initiation_untrusted(message: Initiation, static: StaticKey) -> Received:
    """Decrypt an initiation to the owner of `static`.

    Raises:
        AuthError: it does not verify.
        WireError: the hello in it does not parse. Nothing else.
    """
    noise = Handshake(MUSLIN, static, prologue=PROLOGUE)
    hello = noise.read_untrusted(message.ephemeral + message.enc_static + message.enc_payload)
    return Received(message, decode_hello_untrusted(hello), noise.remote_static, noise)


@dataclass(frozen=True, slots=True)
class Admission:
    """Under which terms an initiation is answered."""

    psk: bytes = field(repr=False)
    suite: Suite
    node: NodeId | None = None
    """The member that proved to be the sender; None for a joiner."""
    stamp: int = 0
    """Of the member's initiation, not yet compared with earlier ones."""
    joiner: NodeId | None = None
    """The node id a joiner claims; None for a member."""
    joiner_token: bytes | None = None


def answer(
    received: Received,
    admission: Admission,
    *,
    index: int,
    observed: Endpoint,
    entropy: Entropy,
    now: float,
    expires_at: float,
) -> tuple[bytes, Keypair]:
    """The encoded response, MACs still missing, and the keypair, not yet confirmed.

    Args:
        received: the initiation; answered once.
        admission: what was decided about it.
        index: by which the initiator shall address us.
        observed: where the initiation came from.
        entropy: makes the ephemeral key.
        now: monotonic seconds.
        expires_at: when the keypair shall end.
    """
    noise = received.noise
    noise.psk = admission.psk
    message = noise.write(ResponsePayload(admission.suite, observed).encode(), entropy)
    response = Response(
        receiver=received.message.sender,
        sender=index,
        ephemeral=message[:KEY_SIZE],
        enc_payload=message[KEY_SIZE:],
    )
    keypair = Keypair(
        noise.split(),
        suite=admission.suite,
        local_index=index,
        remote_index=response.receiver,
        initiator=False,
        created_at=now,
        expires_at=expires_at,
        node=admission.node,
        joiner=admission.joiner,
        joiner_token=admission.joiner_token,
        joiner_static=received.remote_static if admission.joiner_token else None,
    )
    return response.encode(), keypair


def refuse(
    received: Received, psk: bytes, payload: StalePayload | RevokedPayload, entropy: Entropy
) -> bytes:
    """The encoded response, macs still missing, to an initiation that makes no session.

    Args:
        received: the initiation; answered once.
        psk: the cluster's.
        payload: why it makes none.
        entropy: makes the ephemeral key.
    """
    noise = received.noise
    noise.psk = psk
    message = noise.write(payload.encode(), entropy)
    return Response(
        receiver=received.message.sender,
        sender=0,
        ephemeral=message[:KEY_SIZE],
        enc_payload=message[KEY_SIZE:],
    ).encode()
