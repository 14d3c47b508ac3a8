"""Host metrics: sampled by psutil, kept in a spool while the database is away, stored in `system_metrics`."""
