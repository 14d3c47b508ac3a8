"""docs/security.md says who reaches whom and who holds which secret, as compose.yaml has it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
HEAD = "| service | networks | published | host and shared folders | secrets |"


def row(name: str) -> str:
    """The line of a service: what its definition gives it, and nothing else."""
    service = SERVICES[name]
    networks = "the host's" if service.get("network_mode") == "host" else ", ".join(service.get("networks", []))
    ports = [re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", port) for port in service.get("ports", [])]
    shared = []
    for mount in service.get("volumes", []):
        source, target, *options = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", mount).split(":")
        if not source.startswith("./"):  # its configuration
            shared.append(f"`{source}`" + (" (read-only)" if "ro" in ",".join(options).split(",") else ""))
        assert os.path.isabs(target)
    listed = [one if isinstance(one, str) else one["source"] for one in service.get("secrets", [])]
    cells = [f"`{name}`", networks, ", ".join(ports), ", ".join(shared), ", ".join(listed)]
    return "| " + " | ".join(cell or "none" for cell in cells) + " |"


def test_the_table_is_what_compose_gives_each_service() -> None:
    expected = [HEAD, "|---|---|---|---|---|", *(row(name) for name in sorted(SERVICES))]
    found = DOCUMENT[DOCUMENT.index(HEAD) :].split("\n\n")[0].splitlines() if HEAD in DOCUMENT else []
    assert found == expected, "put this into docs/security.md:\n" + "\n".join(expected)


def test_every_service_of_the_stack_has_a_way_in_or_is_said_to_have_none() -> None:
    for name in SERVICES:
        assert f"`{name}`" in DOCUMENT
    assert (ROOT / "SECURITY.md").exists()
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text()
