"""The PostgreSQL/TimescaleDB side: connections, level detection and the schema."""
