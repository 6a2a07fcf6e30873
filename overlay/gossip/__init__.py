"""Gossip: how every node comes to hold the same items, and knows who is alive.

Items are opaque here: a key, a version, bytes. Their owners sign them; an injected `admit` checks
that, and `overlay.catalog` gives them meaning. So this package can be read, and proven, alone.

Reading order:

1. `store`     one item per key, the higher (version, body) wins
2. `sync`      making two stores equal: summary, digest, want, delta
3. `offer`     an announcement that must not be lost: a node leaves
4. `member`    who is ready, suspect or dead
5. `schedule`  who is probed when
6. `machine`   `Gossip`: all of it as one machine

Limits of this first version: probes run between all pairs, so their cost grows with the square
of the cluster; and a key is never forgotten, so a node that left keeps its (short) tombstone.
"""
