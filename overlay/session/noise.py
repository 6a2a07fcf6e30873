"""Noise: IK, IKpsk2 and N over X25519, with any of four cipher and hash pairs.

Nodes speak `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`. What is sealed to the key of one who is not
there (`overlay.offline`) is one message of `Noise_N_25519_ChaChaPoly_BLAKE2s`. The other instances
are here because the published test vectors cover all of them, and an implementation that passes
them all has little room left to be wrong.

    IK                          IKpsk2                      N
      <- s   (known before)       <- s   (known before)       <- s   (known before)
      -> e, es, s, ss             -> e, es, s, ss             -> e, es
      <- e, ee, se                <- e, ee, se, psk

Each message is a run of tokens; each token sends a key or mixes a secret into the running key and
hash. `Handshake` interprets the tokens; below it are the two layers of the specification:

    Handshake          whose keys, which message comes next
      SymmetricState   chaining key, transcript hash
        CipherState    one AEAD key and its nonce

Those two are values: an operation returns the state after it. So a message that fails half way
leaves nothing to undo, the new state is simply never taken.

References:
    The Noise Protocol Framework, revision 34: sections 5 (states), 7.4 (N), 7.5 (IK), 9
    (pre-shared keys), 12 (25519, ChaChaPoly, AESGCM, BLAKE2s, SHA256).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from overlay.errors import AuthError, StateError, WireError
from overlay.keys import StaticKey
from overlay.types import Entropy

# -- specification ---------------------------------------------------------------------------------

DH_SIZE: Final = 32
HASH_SIZE: Final = 32
TAG_SIZE: Final = 16
PSK_SIZE: Final = 32


class Token(Enum):
    """One step of a message pattern (Noise, sections 7.1 and 9.2)."""

    E = "send a fresh ephemeral key"
    S = "send the static key, encrypted"
    EE = "mix the secret of both ephemerals"
    ES = "mix initiator's ephemeral with responder's static"
    SE = "mix initiator's static with responder's ephemeral"
    SS = "mix the secret of both statics"
    PSK = "mix the pre-shared key"


Pattern = tuple[tuple[Token, ...], ...]

_FIRST: Final = (Token.E, Token.ES, Token.S, Token.SS)
PATTERNS: Final[dict[str, Pattern]] = {
    "IK": (_FIRST, (Token.E, Token.EE, Token.SE)),
    "IKpsk2": (_FIRST, (Token.E, Token.EE, Token.SE, Token.PSK)),
    "N": ((Token.E, Token.ES),),
}
"""Message patterns by name; all know the responder's static key beforehand."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """One instance of Noise: a pattern, a cipher and a hash.

    `name` is hashed into the handshake, so two ends that differ in any of them fail at once.
    """

    pattern: str
    cipher: str = "ChaChaPoly"
    """`ChaChaPoly` or `AESGCM`."""
    hash: str = "BLAKE2s"
    """`BLAKE2s` or `SHA256`."""

    @property
    def name(self) -> str:
        """As the specification writes it: `Noise_IK_25519_ChaChaPoly_BLAKE2s`."""
        return f"Noise_{self.pattern}_25519_{self.cipher}_{self.hash}"

    def digest(self, data: bytes) -> bytes:
        """HASH(data), 32 bytes."""
        digest: bytes = _HASHES[self.hash](data).digest()
        return digest

    def hkdf(self, chaining_key: bytes, material: bytes, outputs: int = 2) -> tuple[bytes, ...]:
        """HKDF (section 4.3) with so many outputs, two or three."""
        name = _NAMES[self.hash]
        secret = hmac.digest(chaining_key, material, name)
        first = hmac.digest(secret, b"\x01", name)
        second = hmac.digest(secret, first + b"\x02", name)
        if outputs == 2:
            return first, second
        return first, second, hmac.digest(secret, second + b"\x03", name)


_HASHES: Final[dict[str, Callable[[bytes], Any]]] = {
    "BLAKE2s": hashlib.blake2s,
    "SHA256": hashlib.sha256,
}
_NAMES: Final = {"BLAKE2s": "blake2s", "SHA256": "sha256"}
"""The same for `hmac`: given a name it is one call into C."""

MUSLIN: Final = Protocol("IKpsk2")
"""The instance every Muslin handshake uses."""

ONE_WAY: Final = Protocol("N")
"""The instance for one message to somebody who is not there."""


@dataclass(frozen=True, slots=True)
class CipherState:
    """An AEAD key and the nonce it uses next (section 5.1)."""

    protocol: Protocol
    key: bytes = field(default=b"", repr=False)
    """32 bytes; empty before the first secret is mixed. IK never encrypts before that."""
    nonce: int = 0

    def encrypt(self, aad: bytes, plaintext: bytes) -> tuple[Self, bytes]:
        """The state afterwards, and `plaintext` sealed (`TAG_SIZE` bytes longer)."""
        sealed = self._aead().encrypt(self._nonce(), plaintext, aad)
        return replace(self, nonce=self.nonce + 1), sealed

    def decrypt(self, aad: bytes, ciphertext: bytes) -> tuple[Self, bytes]:
        """The state afterwards, and `ciphertext` opened.

        Raises:
            AuthError: it does not verify (BAD_HANDSHAKE). Nothing else.
        """
        try:
            opened = self._aead().decrypt(self._nonce(), ciphertext, aad)
        except InvalidTag as error:
            raise AuthError("a handshake message that does not verify") from error
        return replace(self, nonce=self.nonce + 1), opened

    def _aead(self) -> AESGCM | ChaCha20Poly1305:
        return AESGCM(self.key) if self.protocol.cipher == "AESGCM" else ChaCha20Poly1305(self.key)

    def _nonce(self) -> bytes:
        # Section 12: four zero bytes, then the counter, little endian for ChaChaPoly only.
        return bytes(4) + self.nonce.to_bytes(
            8, "big" if self.protocol.cipher == "AESGCM" else "little"
        )


@dataclass(frozen=True, slots=True)
class SymmetricState:
    """The running key and the running hash of a handshake (section 5.2)."""

    protocol: Protocol
    chaining_key: bytes = field(repr=False)
    transcript: bytes
    """Hash of everything both ends have seen so far; every ciphertext is bound to it."""
    cipher: CipherState

    @classmethod
    def start(cls, protocol: Protocol) -> Self:
        """Both run from the name of the protocol (padded to a hash, or hashed if longer)."""
        name = protocol.name.encode()
        first = name.ljust(HASH_SIZE, b"\0") if len(name) <= HASH_SIZE else protocol.digest(name)
        return cls(protocol, first, first, CipherState(protocol))

    def mix_hash(self, data: bytes) -> Self:
        """Bind everything that follows to `data`."""
        transcript = self.protocol.digest(self.transcript + data)
        # Not `replace`: this is asked for six times and more in each handshake message.
        return type(self)(self.protocol, self.chaining_key, transcript, self.cipher)

    def mix_key(self, material: bytes) -> Self:
        """Make everything that follows depend on a secret."""
        chaining_key, key = self.protocol.hkdf(self.chaining_key, material)
        return replace(self, chaining_key=chaining_key, cipher=CipherState(self.protocol, key))

    def mix_key_and_hash(self, material: bytes) -> Self:
        """The same for a pre-shared key, which also enters the hash (section 9.1)."""
        chaining_key, hashed, key = self.protocol.hkdf(self.chaining_key, material, 3)
        mixed = replace(self, chaining_key=chaining_key, cipher=CipherState(self.protocol, key))
        return mixed.mix_hash(hashed)

    def encrypt_and_hash(self, plaintext: bytes) -> tuple[Self, bytes]:
        """Seal `plaintext`, bound to all that went before; mix in what goes on the wire."""
        cipher, sealed = self.cipher.encrypt(self.transcript, plaintext)
        return replace(self, cipher=cipher).mix_hash(sealed), sealed

    def decrypt_and_hash(self, ciphertext: bytes) -> tuple[Self, bytes]:
        """Open what `encrypt_and_hash` sealed.

        Raises:
            AuthError: it does not verify (BAD_HANDSHAKE). Nothing else.
        """
        cipher, opened = self.cipher.decrypt(self.transcript, ciphertext)
        return replace(self, cipher=cipher).mix_hash(ciphertext), opened

    def split(self) -> tuple[bytes, bytes]:
        """Transport keys: initiator to responder, responder to initiator."""
        first, second = self.protocol.hkdf(self.chaining_key, b"")
        return first, second


@dataclass(frozen=True, slots=True)
class _Progress:
    """All of a handshake that changes while messages pass."""

    symmetric: SymmetricState
    ephemeral: StaticKey | None = field(default=None, repr=False)
    remote_static: bytes = b""
    remote_ephemeral: bytes = b""
    messages: int = 0


class Handshake:
    """One end of one handshake.

    Error contract: a call that raises changes nothing, so the right message may still come after
    any number of wrong ones.

    Args:
        protocol: the instance of Noise to run.
        static: this end's static key; the initiator of pattern N has none.
        prologue: bytes both ends must agree on without sending them.
        remote_static: the responder's public key if this end is the initiator, which must know
            it; None if this end is the responder.
        psk: the pre-shared key. May be set later, but before the second message.
    """

    __slots__ = ("_pattern", "_progress", "_static", "initiator", "psk")

    def __init__(
        self,
        protocol: Protocol,
        static: StaticKey | None,
        *,
        prologue: bytes,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        self.initiator = remote_static is not None
        self.psk = psk
        self._static = static
        self._pattern = PATTERNS[protocol.pattern]
        # The responder's key is a pre-message of both patterns: known, never sent, but hashed.
        known = remote_static
        if known is None:
            assert static is not None, "a responder has a static key"
            known = static.public
        symmetric = SymmetricState.start(protocol).mix_hash(prologue).mix_hash(known)
        self._progress = _Progress(symmetric, remote_static=remote_static or b"")

    @property
    def remote_static(self) -> bytes:
        """The other end's static public key; empty until a responder has read one."""
        return self._progress.remote_static

    @property
    def transcript(self) -> bytes:
        """Hash of the handshake so far; after the last message the same at both ends only."""
        return self._progress.symmetric.transcript

    def write(self, payload: bytes, entropy: Entropy) -> bytes:
        """The next message, carrying `payload`. `entropy` makes the ephemeral key.

        Raises:
            AuthError: the remote static key is of low order.
            StateError: it is not this end's turn, or the pre-shared key is missing. Nothing else.
        """
        progress, message = self._progress, b""
        for token in self._turn(sending=True):
            match token:
                case Token.E:
                    ephemeral = StaticKey(entropy(DH_SIZE))
                    progress = replace(progress, ephemeral=ephemeral)
                    progress = self._mix_ephemeral(progress, ephemeral.public)
                    message += ephemeral.public
                case Token.S:
                    assert self._static is not None, "only pattern N goes without"
                    symmetric, sealed = progress.symmetric.encrypt_and_hash(self._static.public)
                    progress = replace(progress, symmetric=symmetric)
                    message += sealed
                case _:
                    progress = self._mix_secret(progress, token)
        symmetric, sealed = progress.symmetric.encrypt_and_hash(payload)
        self._progress = replace(progress, symmetric=symmetric, messages=progress.messages + 1)
        return message + sealed

    def read_untrusted(self, message: bytes) -> bytes:
        """The payload of the other end's next message.

        Raises:
            AuthError: it does not verify, or holds a key of low order (BAD_HANDSHAKE).
            WireError: it is shorter than its keys and tags.
            StateError: it is not the other end's turn, or the pre-shared key is missing. Nothing
                else.
        """
        progress, rest = self._progress, message
        for token in self._turn(sending=False):
            match token:
                case Token.E:
                    ephemeral, rest = _cut(rest, DH_SIZE)
                    progress = replace(progress, remote_ephemeral=ephemeral)
                    progress = self._mix_ephemeral(progress, ephemeral)
                case Token.S:
                    sealed, rest = _cut(rest, DH_SIZE + TAG_SIZE)
                    symmetric, static = progress.symmetric.decrypt_and_hash(sealed)
                    progress = replace(progress, symmetric=symmetric, remote_static=static)
                case _:
                    progress = self._mix_secret(progress, token)
        _cut(rest, TAG_SIZE)
        symmetric, payload = progress.symmetric.decrypt_and_hash(rest)
        self._progress = replace(progress, symmetric=symmetric, messages=progress.messages + 1)
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """Keys of the finished handshake: for sending and for receiving at this end.

        Raises:
            StateError: the handshake is not finished. Nothing else.
        """
        if self._progress.messages < len(self._pattern):
            raise StateError("the handshake is not finished")
        first, second = self._progress.symmetric.split()
        return (first, second) if self.initiator else (second, first)

    def _turn(self, *, sending: bool) -> tuple[Token, ...]:
        number = self._progress.messages
        if number >= len(self._pattern):
            raise StateError("the handshake is finished")
        if (number % 2 == 0) != (sending == self.initiator):
            raise StateError("it is the other end's turn")
        return self._pattern[number]

    def _mix_ephemeral(self, progress: _Progress, public: bytes) -> _Progress:
        symmetric = progress.symmetric.mix_hash(public)
        if any(Token.PSK in tokens for tokens in self._pattern):
            # Section 9.2: with a pre-shared key the ephemeral also randomises the key.
            symmetric = symmetric.mix_key(public)
        return replace(progress, symmetric=symmetric)

    def _mix_secret(self, progress: _Progress, token: Token) -> _Progress:
        if token is Token.PSK:
            if self.psk is None:
                raise StateError("the pre-shared key is missing")
            return replace(progress, symmetric=progress.symmetric.mix_key_and_hash(self.psk))
        secret = self._shared_secret(progress, token)
        return replace(progress, symmetric=progress.symmetric.mix_key(secret))

    def _shared_secret(self, progress: _Progress, token: Token) -> bytes:
        """X25519 of the two keys that a token names; its first letter is the initiator's."""
        names = token.name if self.initiator else token.name[::-1]
        mine = progress.ephemeral if names[0] == "E" else self._static
        theirs = progress.remote_ephemeral if names[1] == "E" else progress.remote_static
        assert mine is not None, "patterns send an ephemeral before they mix it"
        return mine.exchange(theirs)


def _cut(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise WireError("a handshake message shorter than its keys and tags")
    return data[:size], data[size:]
