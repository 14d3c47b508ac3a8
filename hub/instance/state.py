"""What a person should know of Dagster: what somebody has switched off, and runs that hold their slot for nothing."""

from __future__ import annotations

from hub.instance.alive import IS_HELD
from hub.timescale.connection import Connection

_SILENT_SECONDS = 120
_STARTING_SECONDS = 600


def switched_off(connection: Connection) -> list[str]:
    """Names of the schedules and sensors that somebody has switched off."""
    rows = connection.execute(
        "SELECT instigator_body::json #>> '{origin,job_name}' FROM instigators WHERE status = 'STOPPED' ORDER BY 1"
    )
    return [name for (name,) in rows]


def stuck(connection: Connection, *, signs: bool) -> list[str]:
    """Runs that do not go on, as `JOB RUN`: their process is gone, or never came.

    `signs` says that runs leave their sign of life, as those of pipelines/launcher.py do.
    """
    silent = f"status = 'STARTED' AND start_time < extract(epoch FROM now()) - {_SILENT_SECONDS} AND NOT {IS_HELD.format(run='run_id')}"
    waiting = f"status IN ('STARTING', 'CANCELING') AND update_timestamp < now() - interval '{_STARTING_SECONDS} s'"
    rows = connection.execute(
        f"SELECT pipeline_name, run_id FROM runs WHERE {waiting} {f'OR {silent}' if signs else ''} ORDER BY id"
    )
    return [f"{job} {run_id[:8]}" for job, run_id in rows]
