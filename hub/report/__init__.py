"""The weekly report: what a person wants to know of the rollups."""
