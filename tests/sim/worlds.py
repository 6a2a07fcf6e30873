"""Worlds that several proofs start from."""

from __future__ import annotations

from overlay.sim import Link, World, udp

LOSSY = Link(latency=0.01, jitter=0.005, loss=0.05)


def settled(nodes: int, seed: int = 1, link: Link | None = None, **settings: object) -> World:
    """A world of `nodes` nodes, node1 to nodeN, which has converged."""
    world = World(seed, link=link, **settings)
    for number in range(2, nodes + 1):
        world.add_node(f"node{number}")
    world.run_until(world.converged, timeout=30.0)
    return world


def carry(world: World, *names: str) -> None:
    """Let each of two nodes send the other a packet, from its own address: their paths are used."""
    there = names[::-1]
    for near, far in zip(names, there, strict=True):
        ends = [world[name].engine.parts.holdings.address for name in (near, far)]
        world.send_packet(near, udp(*ends, b"carried"))


def blocks_of(world: World, name: str) -> list[str]:
    """IPv4 blocks that a node uses, as text."""
    return [str(prefix) for prefix in world[name].snapshot().own_prefixes if prefix.version == 4]


def knows_pod(world: World, name: str, pod: str) -> bool:
    """Whether a node lists a pod of that name."""
    return any(view.name == pod for view in world[name].snapshot().pods)


def routes_to(world: World, name: str, seen_by: str) -> list[str]:
    """Prefixes that `seen_by` routes to `name`, as text."""
    return sorted(str(r.prefix) for r in world[seen_by].snapshot().routes if r.node == name)
