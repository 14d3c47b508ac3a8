"""The engine of Reading Hub: plain Python and SQL, with no Dagster import anywhere."""
