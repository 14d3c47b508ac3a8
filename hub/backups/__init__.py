"""Backups that have been restored: taken under one snapshot, sealed, verified, drilled, rotated, copied off-site."""
