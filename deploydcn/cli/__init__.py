"""The command line: one module per command, whose bodies call only the public API.

Exit codes: 0 success, 1 numbers differ, 2 the caller's mistake, 3 a bug in deploydcn.
"""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console

from deploydcn.cli import bench, build, convert, doctor, drift, export, inspect, quantize, run, serve, triton, verify, visualize
from deploydcn.errors import DeployDcnError, UserError

app = typer.Typer(
    name="deploydcn",
    help="PyTorch models with deformable convolutions, in production: ONNX, ONNX Runtime, TensorRT, with parity proven.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _module in (export, convert, inspect, quantize, drift, build, verify, run, serve, triton, visualize, bench, doctor):
    app.command(name=_module.__name__.rpartition(".")[2], help=_module.__doc__)(_module.command)


def main() -> None:
    """Run the command line; turn our exceptions into messages and exit codes."""
    try:
        app()
    except DeployDcnError as error:
        label = "error" if isinstance(error, UserError) else "bug in deploydcn, please report it"
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"{label}: {error}")
        sys.exit(2 if isinstance(error, UserError) else 3)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception:
        Console(stderr=True).print_exception(max_frames=8)
        print("bug in deploydcn, please report it with the lines above", file=sys.stderr)
        sys.exit(3)
