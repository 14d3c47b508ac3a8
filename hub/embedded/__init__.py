"""Real databases with nothing to install: PostgreSQL from a wheel and a MongoDB wire-protocol server."""
