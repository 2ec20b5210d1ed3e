"""Show what an ONNX file holds, and what its deformable and foreign nodes would become for each target."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from deploydcn.cli.options import Json, console, print_json
from deploydcn.export import TARGETS, inspect
from deploydcn.tables import table


def command(
    model: Annotated[Path, typer.Argument(help="The ONNX file.")],
    target: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(TARGETS)}; repeatable; all when left out.")] = None,
    as_json: Json = False,
) -> None:
    report = inspect(model, targets=target or tuple(TARGETS))
    if as_json:
        print_json(report.to_json())
        return
    domains = ", ".join(f"{domain or 'ONNX'} {version}" for domain, version in report.domains.items())
    console.print(f"{report.path}: {report.bytes / 1e6:.1f} MB, {report.nodes} nodes, IR {report.ir_version}, operator sets: {domains}")
    console.print(f"written by {report.producer or 'an unnamed producer'}")
    for kind, infos in (("input", report.inputs), ("output", report.outputs)):
        for info in infos:
            console.print(f"  {kind} {info}")
    if report.found:
        rows = [(node.node, node.operator, "  ".join(map(str, node.inputs))) for node in report.found]
        console.print(table("deformable and foreign nodes", ["node", "operator", "inputs"], rows))
    else:
        console.print("no deformable or foreign nodes")
    for plan in report.plans:
        if plan.error:
            console.print(f"target {plan.target}: cannot be converted: {plan.error}")
            continue
        console.print(f"target {plan.target}: can be converted")
        changes = Counter((item.operator, item.becomes) for item in plan.mapping if item.becomes)
        for (operator, becomes), count in changes.items():
            console.print(f"  {count} {operator} -> {becomes}")
        for note in plan.notes:
            console.print(f"  {note}")
