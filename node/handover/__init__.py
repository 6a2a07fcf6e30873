"""From one daemon of a node to the next, without a packet lost: who gives, who takes, and how.

    muslin up, while a daemon runs          systemctl restart
    old -- private socket --> new           old -- service manager's store --> new
           (giver)        (taker)                  (store)

What is passed on are *descriptors* (TUN queue, UDP socket, the folder's lock, the listening
sockets), in which packets and requests wait meanwhile, and one *capsule*: what the old engine
knows, sealed into memory without a file. It is secret, and good for one reader.

Reading order: `capsule`, `speech`, `giver`, `taker`, `store`.
"""
