"""`write_report`: which file holds what follows from its name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument
from deploydcn.files import replace_on_success
from deploydcn.parity import ParityReport
from deploydcn.parity.repro import environment
from deploydcn.report.images import case_to_draw
from deploydcn.report.junit import junit
from deploydcn.report.sampling import Sampling, compare_sampling

SUFFIXES = (".html", ".json", ".xml")


def write_report(
    report: ParityReport, *paths: str | os.PathLike[str], models: tuple[Any, Any] | None = None, command: str = ""
) -> Sampling | None:
    """Write what `verify` found: a page that holds everything (.html), JSON, or JUnit (.xml). Each file is written whole or not at all.

    Args:
        report: from `verify`; with locate=True it has the error along the network and the layer at fault, with detector="auto" boxes.
        paths: the files.
        models: the two that were compared, as they were given to `verify`: ONNX files, torch modules, (module, example) or factories'
            names. They run once more, on the inputs that differ most (on images, if any do), to tell where their deformable layers
            sample; None: that is left out.
        command: what to type to see it again.

    Returns:
        Where the deformable layers sample; None without models, or where no file tells it.

    Raises:
        InvalidArgument: another suffix, or a folder that does not exist or cannot be written.
        MissingDependency: a page needs jinja2 and Pillow.
    """
    for path in paths:
        check_report_path(path)
    told = any(Path(path).suffix != ".xml" for path in paths)
    sampling = compare_sampling(models, case_to_draw(report)) if models is not None and told else None
    texts = {Path(path): _text(Path(path).suffix, report, sampling, command) for path in paths}
    for path, text in texts.items():
        with replace_on_success(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    return sampling


def check_report_path(path: str | os.PathLike[str]) -> None:
    """Refuse what cannot be written, before any work is done; see `write_report` for what is raised."""
    if Path(path).suffix not in SUFFIXES:
        raise InvalidArgument(f"{path}: what to write follows from the name; wanted .html, .json or .xml (JUnit)")
    if Path(path).suffix == ".html":
        lazy_import("jinja2", extra="report")
        lazy_import("PIL", extra="report", package="pillow")
    if Path(path).is_dir():
        raise InvalidArgument(f"{path} is a folder, wanted a file name")
    folder = Path(path).parent
    if not folder.is_dir():
        raise InvalidArgument(f"cannot write {path}: folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise InvalidArgument(f"cannot write {path}: Permission denied; check the folder's permissions")


def _text(suffix: str, report: ParityReport, sampling: Sampling | None, command: str) -> str:
    if suffix == ".xml":
        return junit(report, environment(), command)
    if suffix == ".json":
        told = {"command": command, "environment": environment(), "sampling": None if sampling is None else sampling.to_json()}
        return json.dumps({**report.to_json(), **told}, indent=2) + "\n"
    from deploydcn.report.page import page

    return page(report, sampling, environment(), command)
