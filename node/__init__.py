"""Does: sockets, TUN, netlink, files, processes, and the commands people type.

    what                     where it runs                     module
    -----------------------  --------------------------------  ------------------------------
    packets, both ways       the event loop (uvloop), by fd    driver, io.tun, io.udp
    decisions                the same, between two packets     overlay.engine
    deadlines                the driver's one timer            driver
    operators' requests      tasks of the loop                 control.server, .handlers
    writing the journal      one thread                        writer, journal
    kernel state             one thread, netlink on plain      kernel.thread, .manager
                             asyncio
    packets of other lanes   processes of their own, with the  lanes
                             same driver
    `muslin` verbs           processes of their own            cli, control.client
    containers' runtimes     a process for each verb of CNI    cni, control.pods
    a lab                    daemons in namespaces             lab
    `muslin bench`           the verb's process, and a child   bench, control.benches
                             of the far daemon

`daemon` is the only place that makes and joins parts. Every port to the outside (TUN, UDP) has a
twin in memory (`io.memory`), so the driver runs in tests without root.

Reading order: `daemon`, `driver`, `io/`, `kernel/`, `lanes/`, `control/`, `cli/`, `cni/`,
`lab/`, `bench/`.
"""
