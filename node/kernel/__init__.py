"""The kernel's part of the network: what is wanted, what is there, and the steps between.

    LocalView --desired--> KernelState --+
                                        reconcile --> [Change, ...] --netlink--> the kernel
    the kernel --netlink--> KernelState +

    pod namespace                       node's namespace
    +---------------------------+       +---------------------------------------------+
    | eth0  10.244.1.2/32       |  veth | mus4f1c..  169.254.1.1/32, fe80::1/64       |
    |       fd..:1::2/128       |=======|   10.244.1.2 dev mus4f1c.. src 10.244.1.1   |
    | default via 169.254.1.1   |       | unreachable 10.244.1.0/24                   |
    | default via fe80::1       |       | 10.244.0.0/16 dev muslin0 src 10.244.1.1    |
    +---------------------------+       | muslin0    10.244.1.1/32 (TUN) == daemon    |
                                        +---------------------------------------------+

`desired`, `rules` with its parts (`guard`, `egress`, `hostports`), `limits`, `reconcile` and
`contest` are pure and decide; `netlink`, `nft`, `netns` and `pods` act, and `keeper` has them act.
All that asks the kernel over netlink runs in threads for that (`thread`), because pyroute2 cannot
work on uvloop; `watch` only hears, in the daemon's loop. `manager` is what the daemon holds.

Only what carries our marks is ever changed: routes with our protocol number, veths and queues with
our names, limits with our handles, the TUN, the nft tables of our name, and in a pod what we have
put there.

Reading order: errors, model, desired, rules, guard, egress, hostports, limits, reconcile; frames,
packed, queues, reader, writer, messages, overlap, survey, netlink; elements, ruleset, nft; sockets,
netns, pods, insides, watch, troubles, keeper, thread, runs, manager, contest.
"""
