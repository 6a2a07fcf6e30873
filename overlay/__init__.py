"""Muslin's core: decides what a node of the overlay does, and does none of it.

    bytes and events in ---> [ overlay ] ---> bytes and effects out
    time as an argument       no clock, no socket, no thread, no global randomness, no logging

Whoever runs it (the daemon in `node`, or `overlay.sim` with many nodes on virtual time) executes
the effects in order and calls again at `next_deadline()`. Every machine in here has four verbs:
`on_<input>(..., now)` and `on_deadline(now)` return effects, `next_deadline()` says when to call
again, `snapshot()` shows the state. Only the packet path works on buffers instead.

A reading tour. Each step uses only what came before it; each package's docstring tours its files.

 1. `types`, `errors`, `drops`    the nouns, and all the ways to fail
 2. `effects`, `config`, `views`  what comes out, what is set, what is shown
 3. `keys`, `wire`                bytes <-> values: headers, bursts, handshakes, certificates
 4. `session`                     how two nodes come to share keys
 5. `routing`                     where packets go, and how large they may be on the way
 6. `ipam`                        who owns which addresses, without a vote
 7. `gossip`                      how all nodes come to know the same, and who is alive
 8. `catalog`                     what follows from it: records and deeds become routes
 9. `forwarding`                  a packet's journey, both directions
10. `losses`, `trials`, `peering`, `knowledge`
                                  sessions, paths and routes of one node, put together
11. `state`, `holdings`, `own_record`, `seeking`, `tokens`, `admission`, `steward`, `storing`,
    `inviting`, `offline`         what one node holds, stores, asks for and gives away
12. `answers`, `bench`, `lanes`, `snapshots`, `parts`, `engine`, `handover`
                                  one node; with lanes, its packets in several processes; and how
                                  it goes on in the next process
13. `channel`, `joining`          a process that wants to become one
14. `sim`                         many of them

In a hurry: `forwarding` for the packet path, `session` for the cryptography, `engine` for how the
parts meet. What nodes say to each other is in PROTOCOL.md, in a form from which it could be
written again.

Units, everywhere: durations are seconds as float; times named `now`, `deadline` or `*_at` are
monotonic seconds; times named `wall` are Unix seconds; sizes are bytes. `local` and `remote` are
seen from this node. A name that ends in `_untrusted`, or begins with `decode`, sees bytes that
anybody may have sent.

Public names, for whoever runs a node: `overlay.engine.Engine`, `overlay.joining.Joiner`,
`overlay.state.NodeState`, `overlay.effects`, `overlay.views`, `overlay.config`, `overlay.errors`,
and the values they are made from: `overlay.wire.certificate`, `overlay.wire.cluster`,
`overlay.wire.token`, `overlay.keys`, `overlay.types`. Nothing is imported here, because the command
line needs the types and not the cryptography.
"""
