"""Dagster's own database, asked and kept small by SQL: what runs live, what is switched off, what may go."""
