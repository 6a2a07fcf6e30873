"""Why a packet, or a datagram, was not delivered: the complete list.

Every thing the daemon reads ends in exactly one counter. `DropReason` names all the ways to lose
it, one line each, in the order a packet meets them. Values are stable: they are counter labels,
JSON keys and log fields. Append; never rename.
"""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """One way to lose a packet (outbound, inbound) or an outer datagram."""

    # -- outbound: TUN -> peer, counted in packets ------------------------------------------
    MALFORMED = "malformed"  #: not IPv4 or IPv6, or shorter than its own header says
    FOREIGN_SOURCE = "foreign_source"  #: the source address is not one of this node's
    NO_ROUTE = "no_route"  #: no node owns the destination
    LOCAL_DESTINATION = "local_destination"  #: ours, but the kernel sent it to the overlay
    MULTICAST = "multicast"  #: link-local, multicast or broadcast: not routed between nodes
    OVERSIZE = "oversize"  #: does not fit a block
    NO_ENDPOINT = "no_endpoint"  #: the owner is known, its underlay address is not
    QUEUE_FULL = "queue_full"  #: too much waits for a session with the owner
    NO_SESSION = "no_session"  #: the handshake with the owner did not complete in time
    SEND_FAILED = "send_failed"  #: the kernel refused the datagram
    # -- inbound: outer datagrams, counted in datagrams --------------------------------------
    TRUNCATED = "truncated"  #: shorter than an outer header or a minimal message
    UNKNOWN_TYPE = "unknown_type"  #: the type is none of ours
    BAD_HEADER = "bad_header"  #: index over last, last over the limit, wrong lane, too many bytes
    UNKNOWN_INDEX = "unknown_index"  #: no session has this receiver index
    REPLAYED = "replayed"  #: the counter was seen, is too old for the window, or too high
    BAD_TAG = "bad_tag"  #: the AEAD did not verify
    OVERLAY_SOURCE = "overlay_source"  #: a handshake from inside the pod network: never an underlay
    BAD_HANDSHAKE = "bad_handshake"  #: a handshake message that proves nothing
    BAD_CERTIFICATE = "bad_certificate"  #: not by a trusted authority, expired, or revoked
    UNDER_LOAD = "under_load"  #: answered with a cookie instead
    RATE_LIMITED = "rate_limited"  #: a handshake message over what its source may ask for now
    REASSEMBLY_FULL = "reassembly_full"  #: pushed out of the reassembly table by newer bursts
    REASSEMBLY_EXPIRED = "reassembly_expired"  #: the rest of the burst never came
    DUPLICATE_SEGMENT = "duplicate_segment"  #: this segment of the burst was already there
    # -- inbound: packets of an opened burst ------------------------------------------------------
    BAD_BLOCK = "bad_block"  #: the blocks of the burst do not add up
    UNKNOWN_BLOCK = "unknown_block"  #: a block kind this version does not know
    SPOOFED_SOURCE = "spoofed_source"  #: the inner source does not belong to the sending node
    NOT_OURS = "not_ours"  #: the inner destination is not on this node
    BAD_CONTROL = "bad_control"  #: a control message that does not decode or is out of place
    FLOODED = "flooded"  #: a control message of a member that says more than a member may
    DELIVERY_FAILED = "delivery_failed"  #: the kernel refused the packet
    # -- both directions, counted in what waited -------------------------------------------------
    LANE_LOST = "lane_lost"  #: waited in a lane whose process ended
