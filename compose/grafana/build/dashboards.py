"""Every dashboard, as the text of its file."""

from __future__ import annotations

import json
from pathlib import Path

from compose.grafana.build import backups, hosts, logs, pipeline, reading

FOLDER = Path(__file__).resolve().parent.parent / "dashboards"


def built() -> dict[str, str]:
    """File name to JSON, for each dashboard."""
    made = {module.__name__.rpartition(".")[2]: module.build() for module in (reading, hosts, pipeline, backups, logs)}
    return {f"{name}.json": json.dumps(one, indent=2, ensure_ascii=False) + "\n" for name, one in made.items()}
