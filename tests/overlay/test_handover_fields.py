"""What of each class is handed over is known: whoever adds a field decides. See `test_handover`."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.sim import World
from tests.overlay.test_handover import traded
from tests.support.engines import engine_of

NOT_HANDED = {
    "Takeovers": {"_sessions"},
    "PathMtus": {"changed", "_paths", "_outbound", "_keypair", "_settings", "_largest", "_probes"},
    "Trials": {"_outbound", "_keypairs", "_settings", "_takes", "_due"},
    "Tending": {"_peering", "_timing", "_is_dead"},
    "Ledger": set(),
    "Reassembly": {"_per_session", "_total", "_expires_after", "_counts", "_places", "held"},
    "Books": {"_stats", "_peers"},
    "Gossip": {"_offer", "_rng", "_name_of", "_timing", "_summary_at"},
    "Liveness": {
        *("_allowance", "_call_at", "_deadline", "_helped", "_in_a_row", "_probe_at", "_probes"),
        *("_rng", "_round", "_timing", "_urgent"),
    },
    "Hearsay": {"_has_lied", "_local", "_name_of", "_rng", "_timing", "rings"},
    "Members": {"_is_stale", "_next", "_timing", "root"},
    "Evidence": set(),
    "Awareness": set(),
    "Broadcasts": set(),
    "Spread": {
        *("_answered", "_ask_at", "_comparing", "_complaints", "_denied", "_flush_at"),
        *("_may_ask_at", "_neighbours", "_outboxes", "_own_keys", "_rests", "_timing", "_wanted"),
        *("learned", "muted"),
    },
    "Damping": {"_swept_at"},
    "Store": {
        *("_admit", "_buckets", "_id_of", "_ids", "_items", "_limits", "_root", "_roots", "size"),
        *("superseded", "unstored", "unwelcome"),
    },
    "Knowledge": {
        *("_local", "_outside", "_store", "_catalog", "_gossip", "_peering", "_routes"),
        *("_outbound", "_inbound", "_reminders", "_restarted"),
    },
    "Distrust": {"_wall", "_identity", "_store", "_catalog", "_gossip", "_peering", "_news"},
    "Outside": {
        *("_local", "_cluster", "_catalog", "_paths", "_answered", "_endpoints", "_name_of"),
        *("_complaints", "_fresh", "_heard", "_offers", "_judged", "_claims", "_blocked"),
        *("_cover", "in_force", "refused"),
        *("_ways", "_way_cover"),  # the next process reads the machine's routes before it starts
    },
    "BlockSeeker": {"_catalog", "_local", "_retry", "_rng", "_ready"},
    "Renewal": {
        *("_identity", "_timing", "_rng", "_wall", "_certifiers", "_issuer", "_read", "_name_of"),
    },
    "Versions": {"_catalog", "_made", "_node"},
    "Pace": {"_interval"},
    "Conflict": {"_parts", "standing", "_recalled"},
    "Landlord": {"_parts", "_local", "_cluster"},
    "IdleBlocks": {"_idle_after"},
    "ReturnedBlocks": {"_node", "_quarantine", "_titles"},
    "Manners": {"_parts", "_steward"},
    "PeerPath": {"node", "burst", "fill", "keypair", "packed", "path_mtu", "payload", "spans"},
    "Sessions": {"keypairs", "_local", "is_hopeless", "load", "peers", "due"},
    "Voice": set(),
    "Copies": set(),
    "Gate": {
        *("_entropy", "_identity", "_live_stamp", "_prefer_aes", "_psk", "_read_certificate"),
        *("_said_loaded", "_token_secret", "_wall"),
    },
    "MacChecker": {"_cookie_key", "_entropy", "_mac1_key"},
    "RateLimit": {
        *("_any_cookies", "_any_turns", "_failed", "_fair_cookies", "_fair_turns"),
        *("_member_turns", "meter", "responses"),
    },
    "IndexTable": {"_entropy", "_half_open", "_limit", "changed", "keypairs", "pending"},
    "PeerSession": {
        *("_asked", "_attempt", "_give_up_at", "_local", "_macs", "_outdone", "_retry_at"),
        *("_tries", "node", "static"),
    },
    "Keyring": {"_indexes", "_wins_ties"},
    "Keypair": {"_open", "_seal"},
    "ReplayWindow": set(),
    "PathMtu": {"_timing"},
    "_Peer": {"path"},
    "Trial": {"_timing"},
    "_Seen": set(),
}
"""What of each class is not handed over: it is given to the new one, follows from what is, or
stands in the table of `overlay.handover`. Whoever adds a field decides."""


def fields_of(one: object) -> set[str]:
    slots = {name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())}
    return slots | set(getattr(one, "__dict__", {}))


def those_that_hand_over(root: object) -> Iterator[object]:
    """All objects below `root` whose class says what it hands over."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, str | bytes | int | float | World):
            continue
        seen.add(id(one))
        if isinstance(one, dict | list | tuple | set | frozenset):
            waiting += [*one.values(), *one] if isinstance(one, dict) else [*one]
        elif type(one).__module__.startswith("overlay"):
            waiting += [getattr(one, name) for name in fields_of(one) if hasattr(one, name)]
            if hasattr(one, "HANDED"):
                yield one


def test_every_field_of_every_class_is_handed_over_or_known_not_to_be():
    world = traded()
    found: dict[str, set[str]] = {}
    for one in those_that_hand_over(engine_of(world, "node1")):
        codecs = set(type(one).HANDED.codecs)
        assert codecs <= fields_of(one), type(one)
        found[type(one).__name__] = fields_of(one) - codecs
    for name, fields in found.items():
        assert fields == NOT_HANDED[name], name
    assert len(found) > 30
