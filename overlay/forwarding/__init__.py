"""A packet's journey, both directions. Works on buffers, in bursts, without effect objects.

Outbound (`outbound`), TUN to underlay:

    1. `room()` says where the next TUN read goes: into a buffer with space for a block header.
    2. `accept(size)` looks at the packet once: well formed? from us? whose is the destination?
       One dictionary hit for a known flow, two longest-prefix matches for a new one.
    3. A large packet is sealed where it lies; small ones are packed behind each other, per peer.
    4. `flush()` at the end of the pass seals what was packed. One burst: one AEAD call, one
       strided copy, one `transmit`.
    5. A peer without a session gets a bounded queue and a handshake.

Inbound (`inbound`), underlay to TUN:

    1. Every datagram of the read is a segment. Known receiver index? Counter inside the window?
    2. Segments that came together are gathered with one copy, others wait in the reassembly table.
    3. AEAD opens the burst; only then is the counter accepted and anything else believed.
    4. Per packet: the inner source is routed to the sender, the inner destination to us.
    5. `deliver()` writes it to the TUN, offload header included; control messages go to the engine.

Both directions ask the same route table, once per flow (`flow`), which is WireGuard's cryptokey
routing: a prefix names the peer that may receive it *and* the only peer that may send from it.

Every thing read ends in exactly one counter of the `ledger`.
"""
