"""Alembic's migrations: each is a short Python file that runs the SQL files beside it."""
