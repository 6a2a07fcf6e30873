"""Makes the engine of a node, from what its folder says, its settings and the machine."""

from __future__ import annotations

import os
import random

from node.config import NodeConfig
from node.edges import Edges
from node.handover.capsule import Capsule
from node.identity import StoredNode
from node.preflight import has_aes
from node.surroundings import Surroundings, boot_id
from node.version import software_version
from overlay.config import Settings, Timing
from overlay.engine import Engine


def make_engine(
    config: NodeConfig,
    node: StoredNode,
    edges: Edges,
    around: Surroundings,
    capsule: Capsule | None,
) -> Engine:
    """An engine that has not started yet.

    Args:
        config: the settings.
        node: what the folder holds.
        edges: where packets come and go; open.
        around: what the machine looks like.
        capsule: what an earlier engine knew; None to begin with what is stored.
    """
    return Engine(
        identity=node.identity,
        cluster=node.cluster,
        psk=node.psk,
        state=node.state,
        settings=Settings(
            timing=Timing(quarantine=config.quarantine),
            mtu=config.mtu,
            underlay_mtu=around.underlay_mtu,
            routes=config.advertise_routes,
            offloads=(*edges.udp.offloads, *edges.tun.offloads),
            prefer_aes=has_aes(),
            certificate_lifetime=config.certificate_lifetime,
        ),
        entropy=os.urandom,
        rng=random.Random(),
        epoch=around.wall.epoch,
        endpoints=around.endpoints,
        deliver=edges.tun.write,
        transmit=edges.udp.send,
        authorities=node.authorities,
        version=software_version(),
        lanes=config.lanes,
        boot_id=boot_id(),
        inherited=capsule.engine if capsule is not None else None,
    )
