"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploydcn.errors import InvalidArgument


@contextlib.contextmanager
def replace_on_success(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path in a new folder beside `path`; when the block succeeds, move everything in it to `path`'s folder.

    Side files (ONNX external data) written next to the yielded path travel with it, `path` itself last, so that a
    reader never sees a model without its data. When the block raises, nothing is left behind.

    Raises:
        InvalidArgument: the folder of `path` does not exist or cannot be written.
    """
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        raise InvalidArgument(f"{target} is a folder, wanted a file name; add one, as in {target / 'model.onnx'}")
    if not folder.is_dir():
        raise InvalidArgument(f"cannot write {target}: folder {folder} does not exist; create it first")
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=folder))
    except OSError as error:
        raise InvalidArgument(f"cannot write {target}: {error.strerror}; check the folder's permissions") from error
    try:
        yield scratch / target.name
        written = sorted(scratch.iterdir(), key=lambda file: file.name == target.name)
        for file in written:
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
