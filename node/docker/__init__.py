"""Docker's containers as pods: a network driver and an address driver in one plugin.

    docker network create -d muslin --ipam-driver muslin pods
    docker run --network pods ...

    dockerd                                  the daemon of this node
    libnetwork --- POST, JSON over a ------> server --> plugin --> the methods of the control
                   Unix socket               (http)     |          socket: pod.add, pod.del, ...
                                                        requests, answers: what it means, purely

1. `http`      one request of HTTP as bytes
2. `server`    listens, bounds and contains; knows nothing of Docker
3. `requests`  what Docker asks, checked
4. `answers`   what it is told
5. `plugin`    which question leads to which control method

What belongs to what:

    Docker's           is here                            why
    network            the cluster's one network          its id is the `network` of the pods
    endpoint           a pod of owner `docker`            its id is the `container` of the pod
    pool               the cluster's range                all nodes share it
    address            one reserved in this node's        stored before Docker hears it, and taken
                       blocks                             over by the endpoint's pod
    gateway            169.254.1.1, on every veth         no address of the pool is spent on it

Nothing else is remembered, here or on the disk: what Docker and this node believe of each other can
be compared by those ids at any time. Docker forgets in its own ways: after a crash it gives back
the addresses of containers that are gone, and may say nothing of their endpoints. Giving back an
address therefore ends the pod that has it.

References:
    moby, libnetwork/docs/remote.md and ipam.md; libnetwork/drivers/remote, ipams/remote.
    moby, pkg/plugins: discovery of sockets and .spec files, and retries for half a minute.
"""
