"""A whole cluster of real daemons on one machine, each in its own network namespace.

    lab-node1                lab-node2                lab-node3          daemons: muslin up
    | muslin0  pods' veths   | muslin0  pods' veths   | ...
    | eth0 198.51.100.1      | eth0 198.51.100.2      | eth0 198.51.100.3
    +----------+             +----------+             +----------+
               | node1                  | node2                  | node3
               +======== bridge br0 in lab-underlay =============+        lab cut: nftables here

The machine's own namespace is not touched: every link is made inside the lab's namespaces. What the
lab does to its nodes it does through the same command line and control socket that people use.
Everything a lab keeps is in /run/muslin/lab/NAME; two labs share nothing but the machine.

Reading order: topology (names and addresses), store (the folder), wiring (links), processes
(daemons), readiness (when is it up), faults (cut and heal), build (up and down), verbs (the rest).
"""
