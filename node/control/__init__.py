"""How commands reach the running daemon: one line of JSON there, one line back.

    muslin get pods --> ControlClient --(DIR/control.sock)--> ControlServer --> Handlers --> engine

`schema` has the two kinds of line and their limits, `client` asks (standard library only, because
the container runtime starts such a client for every pod), `server` listens inside the daemon,
`handlers` is what each method does, and `present` turns the engine's views into the JSON that users
and programs see. Permission is the peer's user id, as the kernel tells it.
"""
