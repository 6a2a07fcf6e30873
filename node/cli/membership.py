"""`muslin init`, `join`, `leave` and `remove`: into a cluster and out of it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, TypeVar

import click

from node.cli.context import (
    Invocation,
    doing,
    next_steps,
    pass_invocation,
    read_line,
    state_option,
)
from node.cli.output import grouped, plain
from node.cli.progress import Progress
from node.errors import NodeError
from overlay.errors import ConfigError
from overlay.types import Endpoint

DEFAULT_CIDR: Final = "10.244.0.0/16"
DEFAULT_BLOCK_PREFIX: Final = 24

LEAVE_PATIENCE: Final = 20.0
"""Longer than the daemon waits for the members to confirm."""

Network = TypeVar("Network", IPv4Network, IPv6Network)


@click.command(
    epilog="""\b
Examples:
  muslin init
  muslin init --cidr 10.244.0.0/16 --advertise 203.0.113.7:6875
  muslin init --cidr 10.8.0.0/20 --block-prefix 26 --cidr6 none"""
)
@click.option("--name", metavar="NAME", help="Name of the node.  [default: the host's name]")
@click.option("--cidr", metavar="CIDR", default=DEFAULT_CIDR, show_default=True, help="IPv4 range.")
@click.option("--cidr6", metavar="CIDR|none", help="IPv6 range.  [default: a random private /48]")
@click.option(
    "--block-prefix",
    metavar="N",
    type=click.IntRange(1, 32),
    default=DEFAULT_BLOCK_PREFIX,
    show_default=True,
    help="Prefix length of a node's block.",
)
@click.option("--listen", metavar="ADDR:PORT", help="UDP address of the underlay.")
@click.option(
    "--advertise", metavar="ADDR:PORT", multiple=True, help="Where other nodes reach this one."
)
@click.option("--certificate-days", metavar="N", help="How long certificates live.  [default: 90]")
@click.option(
    "--passphrase-file",
    metavar="FILE|-",
    help="Keep the authority's key under the passphrase in this file's first line.",
)
@state_option()
@pass_invocation
def init(
    invocation: Invocation,
    name: str | None,
    cidr: str,
    cidr6: str | None,
    block_prefix: int,
    listen: str | None,
    advertise: tuple[str, ...],
    certificate_days: str | None,
    passphrase_file: str | None,
) -> int:
    """Start a cluster: make its authority, this node's identity, and all address blocks."""
    from node import founding, preflight, privileges, sealed  # noqa: PLC0415 - cryptography, netlink: 0.3 s
    from node.config import load_config  # noqa: PLC0415
    from node.kernel.netlink import Netlink  # noqa: PLC0415
    from overlay.wire.cluster import random_ula  # noqa: PLC0415

    folder = invocation.folder
    with doing("cannot start a cluster"):
        privileges.keep_secrets()
        founding.check_unused(folder)
        words = None if passphrase_file is None else sealed.read_passphrase(passphrase_file)
        config = load_config(folder.config, os.environ, {"certificate_days": certificate_days})
        node = founding.found_node(
            founding.node_name(name),
            cidr=_network(cidr, IPv4Network, "--cidr"),
            cidr6=random_ula(os.urandom) if cidr6 is None else _cidr6(cidr6),
            block_prefix=block_prefix,
            entropy=os.urandom,
            wall=time.time(),
            lifetime=config.certificate_lifetime,
        )
        days = None if certificate_days is None else config.certificate_days
        settings = founding.settings_to_write(folder, *_endpoints(listen, advertise), days)
        with Netlink() as netlink:
            preflight.check_overlap(node.cluster, netlink.host_routes())
        with founding.reserved(folder):
            founding.store_node(folder, node, settings, words)
    cluster = node.cluster
    blocks = 1 << (cluster.block_prefix - cluster.cidr.prefixlen)
    click.echo(f"founded cluster {cluster.id.hex()} with node {node.certificate.name}")
    click.echo(f"pods get addresses of {_ranges(cluster.cidr, cluster.cidr6)}")
    click.echo(f"nodes get blocks of /{cluster.block_prefix}; there are {blocks}")
    click.echo(f"keys, certificate and the cluster's authority are in {folder.path}")
    click.echo(f"its fingerprint, for cert install: {grouped(cluster.authority_fingerprint.hex())}")
    next_steps(invocation, "up", "token")
    return 0


@click.command(
    epilog="""\b
Examples:
  ssh vm1 muslin token | muslin join -
  muslin join --token-file /run/credentials/token --name vm2
  muslin join muslin1-kdJ4mQf0..."""
)
@click.argument("token", required=False)
@click.option("--token-file", metavar="FILE", help="Read the token from a file.")
@click.option("--name", metavar="NAME", help="Name of the node.  [default: the host's name]")
@click.option("--listen", metavar="ADDR:PORT", help="UDP address of the underlay.")
@click.option(
    "--advertise", metavar="ADDR:PORT", multiple=True, help="Where other nodes reach this one."
)
@state_option()
@pass_invocation
def join(
    invocation: Invocation,
    token: str | None,
    token_file: str | None,
    name: str | None,
    listen: str | None,
    advertise: tuple[str, ...],
) -> int:
    """Join a cluster: get a certificate and the cluster's address range from a member.

    With "-" as TOKEN it is read from standard input. Every user of the machine can read what is
    typed after a command, in ps, until the command ends; a token is good for one node, so it is
    spent then, unless the join failed.
    """
    if (token is None) == (token_file is None):
        raise click.UsageError("give a TOKEN, or - to read it, or --token-file FILE")
    from node import founding, joiner, preflight, privileges  # noqa: PLC0415 - cryptography, 0.2 s
    from node.kernel.netlink import Netlink  # noqa: PLC0415

    folder = invocation.folder
    with doing("cannot join"):
        privileges.keep_secrets()
        own_name = founding.node_name(name)
        invitation = joiner.read_token(read_line(token, token_file), wall=time.time())
        founding.check_unused(folder)
        settings = founding.settings_to_write(folder, *_endpoints(listen, advertise))
        with founding.reserved(folder):  # before asking: a token is used only once
            with Progress("waiting for a member to answer"):
                node = joiner.join(invitation, own_name, entropy=os.urandom)
            # Whatever is wrong with this machine: token and name are spent now.
            founding.store_node(folder, node, settings)
    cluster = node.cluster
    click.echo(f"joined cluster {cluster.id.hex()} as node {node.certificate.name}")
    click.echo(f"pods get addresses of {_ranges(cluster.cidr, cluster.cidr6)}")
    click.echo(f"keys and certificate are in {folder.path}")
    with doing("cannot look at this machine's routes"), Netlink() as netlink:
        routes = netlink.host_routes()
    try:
        preflight.check_overlap(cluster, routes)
    except NodeError as error:  # it is a member all the same
        click.echo(f"muslin: the daemon will not start: {error}: {error.fix}", err=True)
    else:
        next_steps(invocation, "up")
    return 0


@click.command(
    epilog="""\b
Example:
  muslin leave"""
)
@state_option()
@pass_invocation
def leave(invocation: Invocation) -> int:
    """Hand all blocks back, tell the other nodes, detach the pods, stop the daemon."""
    with doing("cannot leave"), Progress("waiting for the members to confirm"):
        answer = invocation.ask("leave", patience=LEAVE_PATIENCE)
    click.echo(f"left the cluster; other nodes that confirmed it: {answer['confirmed']}")
    click.echo(f"{invocation.folder.path} is of no more use and can be removed")
    return 0


@click.command(
    epilog="""\b
Examples:
  muslin remove vm3
  muslin remove vm3 --force
  muslin get sessions -o json        # with the id of one that has no name here"""
)
@click.argument("node")
@click.option("--force", is_flag=True, help="Also if it was heard of a moment ago, or never.")
@state_option()
@pass_invocation
def remove(invocation: Invocation, node: str, force: bool) -> int:
    """Declare NODE dead for ever: revoke its certificate, take its blocks.

    Only where the authority's key is. The node cannot come back; its name is free again. NODE is
    its name, or its id: of two nodes with one name, or of one that has a certificate and keeps
    quiet.
    """
    with doing(f"cannot remove {node}"):
        answer = invocation.ask("remove", name=node, force=force)
    click.echo(f"removed {plain(node)}: its certificate is revoked, its pods are gone")
    if answer["waits"]:
        click.echo(f"its blocks come back when all members know of it: {plain(answer['waits'])}")
    return 0


def _cidr6(text: str) -> IPv6Network | None:
    return None if text == "none" else _network(text, IPv6Network, "--cidr6")


def _network(text: str, kind: type[Network], key: str) -> Network:
    try:
        return kind(text)
    except ValueError as error:
        family = "an IPv4" if kind is IPv4Network else "an IPv6"
        raise ConfigError(f"{text!r} is not {family} range ({error})", key) from error


def _endpoints(
    listen: str | None, advertise: Sequence[str]
) -> tuple[Endpoint | None, tuple[Endpoint, ...]]:
    """Both flags as `up` would read them: what it refuses must not be stored."""
    from node.config import load_config  # noqa: PLC0415 - only `init` and `join` need it

    given = load_config(Path(os.devnull), {}, {"listen": listen, "advertise": advertise})
    return None if listen is None else given.listen, given.advertise


def _ranges(cidr: IPv4Network, cidr6: IPv6Network | None) -> str:
    return f"{cidr} and {cidr6}" if cidr6 else str(cidr)
