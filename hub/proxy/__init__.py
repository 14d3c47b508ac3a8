"""The proxy API: readings, rollups and host metrics over HTTP, and syncs through Dagster."""
