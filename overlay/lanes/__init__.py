"""Lanes: more than one process carries a node's packets, each on a core of its own.

    lane 0, the daemon                                lane 1 .. n-1, a worker process each
    engine: sessions, gossip, routes                  packet path and nothing else
      |
      | director -- orders: routes, peers, keys -->  worker
      |          <-- reports: counters, probes ---
      |
    TUN queue 0, UDP port p                           TUN queue i, UDP port p + i

The kernel spreads flows over the queues of the TUN. Whatever lane i reads it seals under keys of
its own and sends to one lane of the peer. A pair (i, r) of lanes has its own keys, derived from the
session's, hence its own counters, and its replay window lives in one process: lane r of the
receiver. So no two processes ever share a nonce or a window, and nothing is locked.

Reading order:

1. `messages`: what daemon and worker say to each other.
2. `director`: the daemon's side. Compares what each worker was told with how things are.
3. `remote`: one peer as a worker sees it: which of its lanes to use, and the proof that it works.
4. `worker`: a worker's packet path.
5. `books`: the counters of all lanes, summed; those of lanes that are gone included.

When a worker crashes its keys die with it. The next one gets only keypairs that were made after it
was born, so no counter is used twice and nothing that was captured before is accepted again; the
director replaces all sessions at once for that.

When the daemon hands over to another process (`overlay.handover`) its workers end, and their keys
with them; the new daemon's get none that was made before they were born, and lane 0 carries until
the sessions are replaced. Peers are told before the workers end, so that nothing is on its way to
them (`Director.retire`). The alternative, to hand their counters over, would have made the old
workers' last words part of the proof that no counter is used twice.
"""
