"""Where packets go, and how large they may be on the way.

Reading order:

    slow    longest-prefix match by definition; the oracle of the tests
    lpm     the same, fast: one dict per prefix length and a cache
    table   prefix -> node, derived from what the cluster knows
    mtu     path MTU of one peer, found by probing (RFC 8899)
    trial   whether segmented sends reach one peer whole
"""
