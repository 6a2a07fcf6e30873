"""`muslin metrics`: the node's figures for monitoring."""

from __future__ import annotations

import click

from node.cli.context import Invocation, doing, pass_invocation, state_option
from node.cli.progress import Progress


@click.command(
    epilog="""\b
Examples:
  muslin metrics
  muslin metrics > /var/lib/prometheus/node-exporter/muslin.prom.tmp
  muslin metrics | grep certificate

\b
Prometheus reads it through the textfile collector of node_exporter: write it to a file beside, then
rename that. An alert that is worth having: muslin_certificate_expiry_seconds < 14 * 86400"""
)
@state_option()
@pass_invocation
def metrics(invocation: Invocation) -> int:
    """Print the node's metrics as OpenMetrics text: counters, states, when certificates end."""
    with doing("cannot tell the metrics"), Progress("waiting for the daemon"):
        answer = invocation.ask("metrics")
    click.echo(str(answer["text"]), nl=False)
    return 0
