"""A packet's journey, both directions. Works on buffers, in bursts, without effect objects.

Outbound (`outbound`), TUN to underlay:

    1. `room()` says where the next TUN read goes: into an arena, with space for a block header.
    2. `accept(size)` looks at the packet once: well formed? from us? whose is the destination?
       One dictionary hit for a known flow, two longest-prefix matches for a new one; one look for
       a whole run of like packets (`accept_run`).
    3. Small packets for a peer lie side by side in the arena: that is a burst already. Large ones
       wait there for their turn (`backlog`), so that small ones need not wait with them.
    4. `flush()` at the end of the pass seals what was packed (`sealer`), then a bounded part of the
       bulk, peer by peer. One burst: one AEAD call, one strided copy, one `transmit`.
    5. A peer without a session gets a bounded queue and a handshake.

Inbound (`inbound`), underlay to TUN:

    1. Every datagram of the read is a segment. Known receiver index? Counter inside the window?
    2. Segments that came together are gathered with one copy, others wait in the reassembly table.
    3. AEAD opens the burst; only then is the counter accepted and anything else believed.
    4. Per packet: the inner source is routed to the sender, the inner destination to us.
    5. `deliver()` writes it to the TUN, offload header included; control messages go to the engine.
       Runs of one flow are joined to super-packets before (`coalesce`).

Both directions ask the same route table, once per flow (`flow`), which is WireGuard's cryptokey
routing: a prefix names the peer that may receive it *and* the only peer that may send from it.

Every thing read ends in exactly one counter of the `ledger`.
"""
