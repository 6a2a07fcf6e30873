"""Node records: what a node says of itself, signed, so that anybody may pass it on.

One gossip item per node. Only the node can write it, because its key *is* the item's key:

    key      b"n" || node id 32                (b"b" || u32 block: the deeds of a block)
    version  boot << 32 | n: grows across restarts without a clock
    body     signature 64 || content
    content  [1, version, certificate, left, is_authority, software,
              [[host, port], ...], [block, ...], free_blocks, [[name, block, host, since], ...],
              removals 8, conflict, resumed, [[node id 32, fault], ...], [prefix, ...]]

The signature (by the node, in context `record`) covers the content as sent. So fields that this
version does not know can be appended later, and older nodes still check and pass on the whole.
The version stands inside as well: an item with a falsified version proves nothing.

The prefixes are outside routes that the node advertises, written as in a certificate. A record may
say anything here: what has effect is decided in `overlay.catalog.outside`, prefix by prefix.

A record with `left` ends after that field. It is a tombstone: the node is gone, its name may be
certified again, and its old records must not come back to life.

References:
    Demers et al. 1987, section 2: deletion needs death certificates, or anti-entropy resurrects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from overlay.catalog.keys import node_key
from overlay.catalog.removals import ACKNOWLEDGEMENT_SIZE, NO_REMOVALS
from overlay.complaints import COMPLAINTS_MAX, Complaint
from overlay.config import Limits
from overlay.drops import DropReason
from overlay.errors import AuthError, CapacityError, ConfigError, ForgedError, WireError
from overlay.faults import FAULTS, Fault
from overlay.ipam.plan import BlockPlan
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, verify
from overlay.types import BlockIndex, Endpoint, NodeId, Prefix
from overlay.wire.certificate import (
    CERTIFICATE_MAX,
    NAME_MAX,
    Certificate,
    Identity,
    check_name,
)
from overlay.wire.cluster import Cluster, pack_network
from overlay.wire.items import Item
from overlay.wire.packing import MAX_TIME, U8, U16, Fields, pack
from overlay.wire.routes import advertised_untrusted

# -- specification ---------------------------------------------------------------------------------

ENDPOINTS_MAX: Final = 16
"""Underlay addresses of one node. Others may try them all, so a record must not be able to aim
a cluster's handshakes at a list of strangers."""

SOFTWARE_MAX: Final = 64
"""Characters of the software version."""

RECORD_LIMIT: Final = Limits().record
"""Bytes of a record, signature included, unless the settings say otherwise."""

_FORMAT: Final = 1
_CONTEXT: Final = "record"
_HOST_MAX: Final = 45
_GROUPS4: Final = 14
"""The first four bits of an IPv4 multicast address."""
"""Characters of an IPv6 address in its longest form."""
_TOMBSTONE_FIELDS: Final = 4
_FIELDS: Final = 16
_BOOT_SHIFT: Final = 32


@dataclass(frozen=True, slots=True)
class PodEntry:
    """One pod of the node that signed the record."""

    name: str
    """Unique within the node."""
    block: BlockIndex
    host: int
    """Host number in the block: its IPv4 and its IPv6 address."""
    since: int
    """Unix seconds of its creation."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One version of what a node says of itself."""

    certificate: Certificate
    version: int
    """0 <= version < 2**64, boot counter in the upper half."""
    endpoints: tuple[Endpoint, ...] = ()
    """Where it may be reached, best first. Empty: others learn it from its datagrams."""
    blocks_in_use: tuple[BlockIndex, ...] = ()
    """Blocks it wants traffic for; the first one holds the node's own address."""
    free_blocks: int = 0
    """Blocks it owns, does not use, and would give to a node that joins."""
    pods: tuple[PodEntry, ...] = ()
    software: str = ""
    is_authority: bool = False
    """Whether it can certify nodes that join."""
    removals: bytes = NO_REMOVALS
    """Which removals it knows (`overlay.catalog.removals`), 8 bytes."""
    left: bool = False
    """It has left the cluster. Everything above but certificate and version is empty then."""
    conflict: bool = False
    """Another machine has signed as this node, too (`overlay.conflict`)."""
    resumed: int = 0
    """Version of the newest of its records that it knew when it began to count under this boot
    number. Whoever holds a later one of an earlier boot knows that its state is from a backup."""
    complaints: tuple[Complaint, ...] = ()
    """Members that it complains of: its word, and no more than that (`overlay.complaints`)."""
    routes: tuple[Prefix, ...] = ()
    """Outside prefixes that it advertises, whether it may or not; at most `ROUTES_MAX`."""
    crossed: tuple[Prefix, ...] = ()
    """Prefixes that share addresses with the cluster's and that its machine reaches without the
    overlay (`overlay.crossing`): its word; at most `ROUTES_MAX`."""
    body: bytes = field(default=b"", repr=False, compare=False)
    """Of the item it was read from, which says the same: of two with one version, the greater
    counts."""
    whole: NodeRecord | None = field(default=None, repr=False, compare=False)
    """The record as it came, when its certificate has ended (`overlay.catalog.lapses`): the fields
    above are then what is left of it. None: they are the record."""

    @property
    def node(self) -> NodeId:
        """Whose record it is."""
        return self.certificate.node

    @property
    def name(self) -> str:
        """The node's name, as certified."""
        return self.certificate.name

    @property
    def boot(self) -> int:
        """How often the node had started when it wrote this."""
        return self.version >> _BOOT_SHIFT


def sign_record(
    identity: Identity,
    *,
    version: int,
    endpoints: Sequence[Endpoint] = (),
    blocks_in_use: Sequence[BlockIndex] = (),
    free_blocks: int = 0,
    pods: Sequence[PodEntry] = (),
    software: str = "",
    is_authority: bool = False,
    removals: bytes = NO_REMOVALS,
    left: bool = False,
    conflict: bool = False,
    resumed: int = 0,
    complaints: Sequence[Complaint] = (),
    routes: Sequence[Prefix] = (),
    crossed: Sequence[Prefix] = (),
    limit: int = RECORD_LIMIT,
) -> Item:
    """The item with which a node announces itself; arguments as the fields of `NodeRecord`.

    With `left`, everything but identity and version is left out. `limit` is `Limits.record`.

    Raises:
        CapacityError: the record is larger than `limit` (`record`). Nothing else.
    """
    record = NodeRecord(
        certificate=identity.certificate,
        version=version,
        endpoints=tuple(endpoints),
        blocks_in_use=tuple(blocks_in_use),
        free_blocks=free_blocks,
        pods=tuple(pods),
        software=software,
        is_authority=is_authority,
        removals=removals,
        left=left,
        conflict=conflict,
        resumed=resumed,
        complaints=tuple(complaints),
        routes=tuple(routes),
        crossed=tuple(crossed),
    )
    return seal_record(identity, version, pack_record(record), limit=limit)


def pack_record(record: NodeRecord) -> bytes:
    """The content of a record; of one that has left, identity and version alone."""
    fields: list[object] = [_FORMAT, record.version, record.certificate.encode(), record.left]
    if not record.left:
        fields += [record.is_authority, record.software, record.endpoints]
        fields += [record.blocks_in_use, record.free_blocks]
        fields.append([[pod.name, pod.block, pod.host, pod.since] for pod in record.pods])
        fields += [record.removals, record.conflict, record.resumed]
        fields.append([[one.node, FAULTS.index(one.fault)] for one in record.complaints])
        fields.append([pack_network(prefix) for prefix in record.routes])
        fields.append([pack_network(prefix) for prefix in record.crossed])
    return pack(fields)


def seal_record(identity: Identity, version: int, content: bytes, *, limit: int) -> Item:
    """The item that content of `pack_record` becomes.

    Raises:
        CapacityError: the record is larger than `limit` (`record`). Nothing else.
    """
    if SIGNATURE_SIZE + len(content) > limit:
        raise CapacityError(f"the node's record has {len(content)} bytes", "record")
    body = identity.signing.sign(_CONTEXT, content) + content
    return Item(node_key(identity.node), version, body)


def open_record_untrusted(
    item: Item,
    cluster: Cluster,
    plan: BlockPlan,
    limits: Limits,
    read: Callable[[bytes], Certificate] | None = None,
) -> NodeRecord:
    """Read a record and check that its node signed it, and an authority the node's certificate.

    Whether that authority is trusted is not asked.

    The result depends on the arguments alone; what depends on the time is decided in
    `overlay.catalog.lapses`.

    Args:
        item: an item under some node's key.
        cluster: whose authority must have certified the node.
        plan: the cluster's blocks.
        limits: `record` bounds the size.
        read: reads a certificate and checks its signature, with a memory for those it has checked.

    Raises:
        WireError: the item is not the shape of a record.
        AuthError: the certificate or the signature does not hold (BAD_CERTIFICATE). Nothing else.
    """
    record = decode_record_untrusted(item, cluster, plan, limits, read)
    if read is None:
        record.certificate.verify_signature(cluster)
    content = item.body[SIGNATURE_SIZE:]
    if not verify(record.node, _CONTEXT, content, item.body[:SIGNATURE_SIZE]):
        raise ForgedError(f"the record of {record.name} is not signed by it", Fault.FORGED_RECORD)
    return record


def decode_record_untrusted(
    item: Item,
    cluster: Cluster,
    plan: BlockPlan,
    limits: Limits,
    read: Callable[[bytes], Certificate] | None = None,
) -> NodeRecord:
    """Read a record without checking who wrote it: for items that were admitted before.

    Endpoints that must not be used are left out (see `usable_endpoint`).

    Raises:
        WireError: over the limit, wrong shape, for another key or version than the item's, or
            with contents that contradict each other. Nothing else, but what `read` raises.
    """
    if len(item.body) > limits.record:
        raise WireError(f"record: {len(item.body)} bytes are over the limit of {limits.record}")
    content = Fields.unpack_untrusted(
        item.body[SIGNATURE_SIZE:],
        limits.record,
        "record",
        count=_TOMBSTONE_FIELDS,
        version=_FORMAT,
    )
    read = read or Certificate.decode_untrusted
    certificate = read(content.bytes(2, limit=CERTIFICATE_MAX))
    if content.integer(1) != item.version or node_key(certificate.node) != item.key:
        raise WireError("record: key or version is not the item's")
    if content.boolean(3):
        return NodeRecord(certificate, item.version, left=True, body=item.body)
    if len(content) < _FIELDS:
        raise WireError(f"record: {len(content)} fields where {_FIELDS} are needed")
    blocks = _blocks(content, plan)
    removals = content.bytes(10, ACKNOWLEDGEMENT_SIZE)
    return NodeRecord(
        certificate=certificate,
        version=item.version,
        is_authority=content.boolean(4),
        software=content.text(5, SOFTWARE_MAX),
        endpoints=_endpoints(content, cluster),
        blocks_in_use=blocks,
        free_blocks=content.integer(8, 0, plan.blocks),
        pods=_pods(content, plan, blocks),
        removals=NO_REMOVALS if removals == NO_REMOVALS else removals,  # held once, as a rule
        conflict=content.boolean(11),
        resumed=content.integer(12),
        complaints=_complaints(content),
        routes=advertised_untrusted(content, 14),
        crossed=advertised_untrusted(content, 15),
        body=item.body,
    )


def usable_endpoint(endpoint: Endpoint, cluster: Cluster) -> bool:
    """Whether datagrams may be sent to `endpoint` at all.

    Not into the cluster's own ranges: the overlay would carry itself. Not to a group or to
    no address: one datagram would reach many, or whoever the kernel pleases.

    Args:
        endpoint: a numeric address and a port.
        cluster: whose ranges are avoided.
    """
    if ":" not in endpoint.host:
        # Asked for each handshake message, whoever sent it: numbers, because they are quicker.
        number = int(IPv4Address(endpoint.host))
        group = number >> 28 == _GROUPS4
        inside = number & int(cluster.cidr.netmask) == int(cluster.cidr.network_address)
        return bool(number) and not group and not inside
    address = IPv6Address(endpoint.host)
    if address.is_multicast or address.is_unspecified:
        return False
    return cluster.cidr6 is None or address not in cluster.cidr6


def _endpoints(content: Fields, cluster: Cluster) -> tuple[Endpoint, ...]:
    endpoints = [_endpoint(value) for value in content.sequence(6, ENDPOINTS_MAX)]
    return tuple(endpoint for endpoint in endpoints if usable_endpoint(endpoint, cluster))


def _endpoint(value: object) -> Endpoint:
    fields = Fields(value, "record: endpoint", 2)
    host = fields.text(0, _HOST_MAX)
    try:
        return Endpoint.of(host, fields.integer(1, 1, U16))
    except ValueError as error:
        raise WireError(f"record: {host!r} is no numeric address") from error


def _blocks(content: Fields, plan: BlockPlan) -> tuple[BlockIndex, ...]:
    listed = content.fields(7, "blocks")
    if len(listed) > plan.blocks:
        raise WireError("record: more blocks than the cluster has")
    last = plan.blocks - 1
    blocks = tuple(BlockIndex(listed.integer(at, 0, last)) for at in range(len(listed)))
    _check_distinct(blocks, "block")
    return blocks


def _pods(content: Fields, plan: BlockPlan, blocks: Collection[BlockIndex]) -> tuple[PodEntry, ...]:
    limit = len(blocks) * plan.capacity
    used = {int(block): block for block in blocks}  # so that each number is held once
    pods = tuple(_pod(value, plan, used) for value in content.sequence(9, limit))
    _check_distinct([pod.name for pod in pods], "pod name")
    _check_distinct([(pod.block, pod.host) for pod in pods], "pod address")
    return pods


def _pod(value: object, plan: BlockPlan, blocks: Mapping[int, BlockIndex]) -> PodEntry:
    fields = Fields(value, "record: pod", 4)
    try:
        name = check_name(fields.text(0, NAME_MAX))
    except ConfigError as error:
        raise WireError(f"record: pod: {error}") from error
    number, host = fields.integer(1), fields.integer(2)
    block = blocks.get(number)
    if block is None or not plan.is_pod_host(host):
        raise WireError(f"record: pod {name}: host {host} of block {number} is not to be had")
    return PodEntry(name, block, host, fields.integer(3, 0, MAX_TIME))


def _complaints(content: Fields) -> tuple[Complaint, ...]:
    """Those of this list of faults; a newer version's say nothing here."""
    listed = []
    for value in content.sequence(13, COMPLAINTS_MAX):
        fields = Fields(value, "record: complaint", 2)
        listed.append((NodeId(fields.bytes(0, KEY_SIZE)), fields.integer(1, 0, U8)))
    _check_distinct(listed, "complaint")
    return tuple(Complaint(node, FAULTS[one]) for node, one in listed if one < len(FAULTS))


def _check_distinct(values: Collection[object], what: str) -> None:
    if len(frozenset(values)) != len(values):
        raise WireError(f"record: a {what} occurs twice")


def _bad(message: str) -> AuthError:
    return AuthError(message, DropReason.BAD_CERTIFICATE)
