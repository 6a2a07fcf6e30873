"""Addresses that cannot collide, without a quorum and without a server.

Reading order:

    plan        block numbers <-> prefixes and addresses; arithmetic only
    deeds       who owns which block: signed transfers, and how copies of them merge
    allocator   which pod has which address inside the blocks this node uses

The argument in three steps: all blocks have one owner in the beginning; only the owner can sign a
block over, and does so once per step; a node assigns addresses only from blocks it owns. So two
nodes never assign the same address, whatever the network between them does.
"""
