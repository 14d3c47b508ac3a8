"""`hub metrics`: the collector of host metrics."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer

metrics = typer.Typer(no_args_is_help=True, help="Host metrics.")


@metrics.callback()
def _group() -> None:
    """Host metrics."""


@metrics.command()
def collect(
    once: Annotated[bool, typer.Option("--once", help="Take one sample, print it, send it, and end.")] = False,
    interval: Annotated[str, typer.Option(help="Time between two samples, such as 60s or 5m.")] = "60s",
) -> None:
    """Sample this host into `system_metrics`; while the database is away, samples wait on disk."""
    from hub.cli.service import logged, service_settings, stopped_by_signals
    from hub.metrics.collect import Collector
    from hub.metrics.model import aligned, parse_interval
    from hub.metrics.sample import Sampler
    from hub.metrics.spool import Spool

    seconds = parse_interval(interval)
    # With --once the sample goes to standard output.
    with logged(sys.stderr if once else sys.stdout), service_settings() as settings, stopped_by_signals() as stop:
        spool = Spool(settings.hub_data_dir / "metrics" / "spool.sqlite", limit_bytes=settings.metrics_spool_mb * 2**20)
        sampler = Sampler(root=settings.metrics_root, hostname=settings.metrics_host)
        collector = Collector(settings, sampler, spool)
        if not once:
            collector.run(seconds, stop)
            return
        sampler.sample_rates_over(1.0, stop)
        for sample in collector.tick(aligned(time.time(), seconds)):
            print(json.dumps({"metric_type": sample.metric_type, **sample.payload}))
        if not collector.try_to_send():
            raise typer.Exit(1)
