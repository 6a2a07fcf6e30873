"""`muslin bench`: how fast, how soon and how surely, through the overlay and beside it.

    node1                                                        node2
    CLI: near ---- commands, TCP streams, datagrams -----------> far: a child of the daemon
      |            through the overlay, then beside it             ^
      | control socket                                             | made for one measurement
    daemon ======= BenchRequest, BenchReady, BenchDone =======> daemon

Nothing but the standard library runs at either end, and nothing stays behind. The near end is the
`muslin` command itself: its sockets are made in the daemon's namespace, so it measures from the
node's own address, and Ctrl-C ends it like any command. The far end is one process. Its sockets
are made in the namespace of the pod, or of the node, and in that of the underlay.

What keeps the far end from staying, each by itself: the command connection closes (the near end is
gone), its standard input closes (the daemon is gone), its time is up, the daemon ends it.

The interpreter is not what limits: a sink lets the kernel throw the bytes away (MSG_TRUNC), a
source hands over the same large buffer again and again.

Reading order: figures, verdict, usage, speech, far, near.
"""
