"""What the proxy counts about itself, for Prometheus."""

from __future__ import annotations

import prometheus_client as prometheus


class Numbers:
    """The metrics of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "hub_proxy_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = prometheus.Histogram(
            "hub_proxy_request_seconds", "Time to answer.", ("route",), registry=self.registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )  # fmt: skip
        self.in_flight = prometheus.Gauge(
            "hub_proxy_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self.connections = prometheus.Gauge(
            "hub_proxy_database_connections", "Connections of a pool.", ("pool", "state"), registry=self.registry
        )
        self.launched = prometheus.Counter(
            "hub_proxy_runs_launched", "Dagster runs that were launched.", registry=self.registry
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. `route` is a template, never a path: paths are the callers' words."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return prometheus.generate_latest(self.registry)
