"""The source of the dashboards: `python -m compose.grafana.build` writes compose/grafana/dashboards/*.json."""
