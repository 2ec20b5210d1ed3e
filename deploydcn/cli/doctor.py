"""Say what works in this environment, and how to fix the rest. Exit code 1 when something is broken."""

from __future__ import annotations

from dataclasses import asdict

import typer

from deploydcn.cli.options import Json, console, print_json
from deploydcn.doctor import examine
from deploydcn.tables import table


def command(as_json: Json = False) -> None:
    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(finding.subject, finding.state, finding.detail, finding.fix) for finding in findings]
        console.print(table("deploydcn doctor", ["", "state", "", "fix"], rows))
    raise typer.Exit(1 if any(finding.state == "broken" for finding in findings) else 0)
