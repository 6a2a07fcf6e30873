"""The authority of a simulated cluster: makes the cluster, and certifies machines offline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network

from overlay.keys import SigningKey, StaticKey
from overlay.sim.site import Membership
from overlay.types import Entropy, Prefix
from overlay.wire.certificate import Identity, issue_certificate
from overlay.wire.cluster import found_cluster


class Authority:
    """The authority's key, and what it has given out.

    Args:
        entropy: for all keys.
        founder: name of the first member, who will hold the authority's key.
        cidr, cidr6, block_prefix: the cluster's ranges.
        wall: Unix seconds of the founding.
        lifetime: seconds until the founder's certificate expires.
        make_key: makes signing keys.

    Attributes:
        cluster: the cluster it founded.
        founder: what the first member has.
    """

    def __init__(
        self,
        entropy: Entropy,
        founder: str,
        *,
        cidr: IPv4Network,
        cidr6: IPv6Network | None,
        block_prefix: int,
        wall: int,
        lifetime: int,
        make_key: Callable[[bytes], SigningKey] = SigningKey,
    ) -> None:
        self._entropy = entropy
        self._make_key = make_key
        self._serial = 0
        self._key = make_key(entropy(32))
        self._psk = entropy(32)
        signing, static = self._keys()
        self.cluster = found_cluster(
            self._key,
            genesis=signing.public,
            cidr=cidr,
            cidr6=cidr6,
            block_prefix=block_prefix,
            created=wall,
            entropy=entropy,
        )
        identity = self._certified(founder, signing, static, wall=wall, lifetime=lifetime)
        self.founder = Membership(identity, self.cluster, self._psk, (self._key,))

    def membership(
        self, name: str, wall: int, lifetime: int, routes: Iterable[Prefix] = ()
    ) -> Membership:
        """New keys for `name`, certified from `wall` on for `lifetime` seconds, with `routes`."""
        keys = self._keys()
        identity = self._certified(name, *keys, wall=wall, lifetime=lifetime, routes=routes)
        return Membership(identity, self.cluster, self._psk)

    def _keys(self) -> tuple[SigningKey, StaticKey]:
        return self._make_key(self._entropy(32)), StaticKey(self._entropy(32))

    def _certified(
        self,
        name: str,
        signing: SigningKey,
        static: StaticKey,
        *,
        wall: int,
        lifetime: int,
        routes: Iterable[Prefix] = (),
    ) -> Identity:
        self._serial += 1
        certificate = issue_certificate(
            self._key,
            node=signing.public,
            static=static.public,
            name=name,
            cluster=self.cluster.id,
            serial=self._serial,
            not_before=wall,
            not_after=wall + lifetime,
            routes=routes,
        )
        return Identity(signing, static, certificate)
