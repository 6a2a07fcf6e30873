"""The benchmark: Muslin beside other ways to join two pods, in one topology, in one run.

    pod -- node 1 ====== bridge ====== node 2 -- pod       namespaces of this machine
              '--- the contestant's way ---'

Reading order: `topology` (what is built), `contestants` and `peers` (who runs in it), `workloads`
(what is done to them) with `parse` and `search`, `rounds` (in which order), `figures` (what comes
out), `summary`, `targets`, `report` and `picture` (what is made of it). `growth` measures how the
cost grows with nodes, routes and lanes; `path` times the packet path alone, without a kernel.

Run with `scripts/bench`. Needs root, and nothing else of the machine but its processors.
"""
