"""Rollups: declared once, built as continuous aggregates or tables, refreshed by the buckets that changed."""
