"""`hub doctor` on a terminal."""

from __future__ import annotations

import dataclasses
import json

from rich.markup import escape

from hub.cli.session import Session, console
from hub.doctor import examine


def run_doctor(current: Session, as_json: bool) -> int:
    """Print the findings; return the exit code: 1 if one is red."""
    findings = []
    for finding in examine(current.settings):
        findings.append(finding)
        if not as_json:
            mark = "[green]✓[/green]" if finding.ok else "[red]✗[/red]"
            console.print(f"{mark} {finding.name:<17} {escape(finding.detail)}", soft_wrap=True)
            if finding.remedy:
                console.print(f"  {'':<17} [bold]→ {escape(finding.remedy)}[/bold]", soft_wrap=True)
    healthy = all(finding.ok for finding in findings)
    if as_json:
        print(json.dumps({"ok": healthy, "findings": [dataclasses.asdict(finding) for finding in findings]}, indent=2))
    elif current.embedded:
        console.print(
            f"\nEmbedded servers stood in for {' and '.join(sorted({'DB_HOST', 'MONGO_URI'} & current.embedded))}."
        )
    return 0 if healthy else 1
