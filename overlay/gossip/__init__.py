"""Gossip: how every node comes to hold the same items, and knows who is alive.

Items are opaque here: a key, a version, bytes. Their owners sign them; an injected `admit` checks
that, and `overlay.catalog` gives them meaning. So this package can be read, and proven, alone.

Reading order:

1. `rings`        whom a node watches and talks to: eight neighbours, however large the cluster
2. `store`        one item per key, the higher (version, body) wins; `recent`: ids of what lost
3. `sync`         making two stores equal: roots, buckets, ids, items
4. `wanted`       items that others have: asked for once, of one; `damping`: keys that flap
5. `spread`       the life of an item: `store`, `wanted` and `sync` as one; `offer`: last words
6. `member`       claims, merged by maximum, and own `evidence`: ready, suspect or dead
7. `broadcast`    claims on the back of other messages, a limited number of times
8. `hearsay`      what members say of each other, and of us; `local`: who we are
9. `probe`        questions under way; `awareness`, `suspicion`: how patiently they wait
10. `liveness`    probes and verdicts: `hearsay` and `probe` as one
11. `machine`     `Gossip`: all of it; `letter`: what its parts return

A key is never forgotten, so a node that left keeps its (short) tombstone.
"""
