"""Links: how the list of authorities that a cluster trusts changes.

The first authority is the one of the cluster's description. Each change is a *link*, signed by an
authority that is trusted at that moment:

    link     signature 64 || content
    content  [1, cluster id 8, number, act, key 32, signer 32, previous 16, time, stands]

    act      1 install: `key` is trusted from now on
             2 use: new certificates are signed by `key`
             3 remove: nothing signed by `key` counts any more, but what `stands` names
    previous BLAKE2s-16 of the link before; of the cluster's description for the first
    stands   digests of 16 bytes, ascending; empty unless the act is remove

All links together are one gossip item:

    key      b"c"
    version  how many links
    body     [link, ...], the oldest first

So a list is a chain: whoever holds one can tell whether another continues it. What the links mean,
and whether their signers may say so, is decided in `overlay.catalog.trust`.

References:
    TUF (The Update Framework) specification, section 5.3: each version of the list of keys is
    signed by keys of the one before, so whoever trusts one version can follow to the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from hashlib import blake2s
from itertools import pairwise
from typing import Final, Self

from overlay.errors import WireError
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, SigningKey, verify
from overlay.wire.cluster import CLUSTER_ID_SIZE, Cluster
from overlay.wire.items import Item
from overlay.wire.packing import MAX_TIME, U16, Fields, pack, unpack_untrusted

# -- specification ---------------------------------------------------------------------------------

AUTHORITIES_KEY: Final = b"c"

LINKS_MAX: Final = 128
"""Three make one rotation."""

STATEMENTS_MAX: Final = 1024
"""What one removal of an authority may let stand."""

LIST_MAX: Final = 32_000
"""Bytes of the list. Who joins gets it in the message that also holds a member's record."""

DIGEST_SIZE: Final = 16

_FORMAT: Final = 1
_CONTEXT: Final = "authority"
_FIELDS: Final = 9


class Act(IntEnum):
    """What a link does with its key."""

    INSTALL = 1
    USE = 2
    REMOVE = 3


@dataclass(frozen=True, slots=True)
class Link:
    """One change of the list. Equal links have equal encodings."""

    cluster: bytes
    """The cluster's id."""
    number: int
    """Its place in the list, from 1."""
    act: Act
    key: bytes
    """Ed25519 public key of the authority that it is about, 32 bytes."""
    signer: bytes
    """Public key of the authority that says so, 32 bytes."""
    previous: bytes
    """Digest of what came before, 16 bytes."""
    time: int
    """Unix seconds. For people: no decision depends on it."""
    stands: bytes = field(default=b"", repr=False)
    """What a removed authority said and still counts: digests, one behind the other."""
    signature: bytes = field(default=b"", repr=False)
    """By the signer, 64 bytes."""

    @property
    def digest(self) -> bytes:
        """What the next link names as `previous`, 16 bytes."""
        return digest_of(self.encode())

    def statements(self) -> frozenset[bytes]:
        """The digests in `stands`."""
        return frozenset(_split(self.stands))

    def encode(self) -> bytes:
        """The bytes that `decode_untrusted` reads."""
        return self.signature + self.signed_bytes()

    def signed_bytes(self) -> bytes:
        """What the signature covers (in context `authority`, see `overlay.keys`)."""
        head = [_FORMAT, self.cluster, self.number, int(self.act), self.key, self.signer]
        return pack([*head, self.previous, self.time, self.stands])

    def is_signed(self) -> bool:
        """Whether the signer signed this; whether it may is not asked."""
        return verify(self.signer, _CONTEXT, self.signed_bytes(), self.signature)

    @classmethod
    def decode_untrusted(cls, data: bytes) -> Self:
        """Read an encoded link. Its signature is not checked.

        Raises:
            WireError: wrong shape, size or act, statements out of order or where none belong, or
                not in canonical form. Nothing else.
        """
        content = data[SIGNATURE_SIZE:]
        fields = Fields.unpack_untrusted(content, LIST_MAX, "link", count=_FIELDS, version=_FORMAT)
        act = fields.integer(3, Act.INSTALL, Act.REMOVE)
        link = cls(
            cluster=fields.bytes(1, CLUSTER_ID_SIZE),
            number=fields.integer(2, 1, U16),
            act=Act(act),
            key=fields.bytes(4, KEY_SIZE),
            signer=fields.bytes(5, KEY_SIZE),
            previous=fields.bytes(6, DIGEST_SIZE),
            time=fields.integer(7, high=MAX_TIME),
            stands=fields.bytes(8, limit=STATEMENTS_MAX * DIGEST_SIZE),
            signature=data[:SIGNATURE_SIZE],
        )
        if len(link.stands) % DIGEST_SIZE or (link.stands and link.act is not Act.REMOVE):
            raise WireError("link: statements that are none, or of an act that has none")
        if any(first >= second for first, second in pairwise(_split(link.stands))):
            raise WireError("link: statements not in ascending order")
        if link.encode() != data:
            raise WireError("link: not in canonical form")
        return link


def sign_link(
    authority: SigningKey,
    cluster: Cluster,
    links: Sequence[Link],
    act: Act,
    key: bytes,
    *,
    time: int,
    stands: Iterable[bytes] = (),
) -> Link:
    """The link that follows `links`; whether the list may be changed so is not asked.

    Args:
        authority: who says so.
        cluster: whose list.
        links: all links so far.
        act: what is done,
        key: and with which authority.
        time: Unix seconds.
        stands: digests of what still counts, with `Act.REMOVE`.
    """
    unsigned = Link(
        cluster=cluster.id,
        number=len(links) + 1,
        act=act,
        key=key,
        signer=authority.public,
        previous=links[-1].digest if links else digest_of(cluster.encode()),
        time=time,
        stands=b"".join(sorted(set(stands))),
    )
    return replace(unsigned, signature=authority.sign(_CONTEXT, unsigned.signed_bytes()))


def list_item(links: Sequence[Link]) -> Item:
    """The gossip item that shows a list; of at least one link."""
    body = pack([link.encode() for link in links])
    return Item(AUTHORITIES_KEY, len(links), body)


def links_untrusted(item: Item) -> tuple[Link, ...]:
    """The links in an item, in order. Neither signatures nor sense are checked.

    Raises:
        WireError: not the key, over a limit, no link in it, another number of them than its
            version, or not in canonical form. Nothing else.
    """
    if item.key != AUTHORITIES_KEY or not 0 < item.version <= LINKS_MAX:
        raise WireError("list of authorities: another key, or too many links")
    values = unpack_untrusted(item.body, LIST_MAX)
    fields = Fields(values, "list of authorities")
    if len(fields) != item.version:
        raise WireError("list of authorities: another number of links than it says")
    links = tuple(
        Link.decode_untrusted(fields.bytes(place, least=SIGNATURE_SIZE))
        for place in range(len(fields))
    )
    if list_item(links) != item:
        raise WireError("list of authorities: not in canonical form")
    return links


def digest_of(data: bytes) -> bytes:
    """The 16 bytes by which a link, a cluster's description or a statement is named."""
    return blake2s(data, digest_size=DIGEST_SIZE).digest()


def _split(stands: bytes) -> list[bytes]:
    return [stands[at : at + DIGEST_SIZE] for at in range(0, len(stands), DIGEST_SIZE)]
