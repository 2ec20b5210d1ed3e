"""What a configuration says apart from tensors: names, versions, instances, batching, libraries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deploydcn.triton.signature import ONNX, TENSORRT

if TYPE_CHECKING:
    from deploydcn.triton.check import ModelFolder

ENTRY_POINT = b"RegisterCustomOps"
"""The function that ONNX Runtime looks for in a library of operators."""

OTHER_FOLDERS = ("configs",)
"""Folders of a model that are no versions: configurations under other names."""


def check(model: ModelFolder) -> None:
    """Names, instances and batching."""
    message = model.config.message
    if message.name and message.name != model.path.name:
        model.report_field(f"the model is called {message.name!r} and its folder {model.path.name!r}; wanted the same name", "name")
    if not message.backend and not message.platform and not message.HasField("ensemble_scheduling"):
        model.report_field('names neither backend nor platform; wanted backend: "onnxruntime" or "tensorrt"')
    if message.max_batch_size < 0:
        model.report_field(f"max_batch_size is {message.max_batch_size}; wanted 0 or more", "max_batch_size")
    _instances(model)
    _batching(model)


def _instances(model: ModelFolder) -> None:
    kinds = type(model.config.message.instance_group.add()).DESCRIPTOR.enum_types_by_name["Kind"].values_by_number
    del model.config.message.instance_group[-1]
    for index, group in enumerate(model.config.message.instance_group):
        kind = kinds[group.kind].name if group.kind in kinds else str(group.kind)
        if group.count < 0:
            model.report_field(f"count is {group.count}; wanted 1 or more", "instance_group", index, "count")
        if kind == "KIND_CPU" and group.gpus:
            model.report_field("KIND_CPU and gpus exclude each other; leave gpus out", "instance_group", index, "gpus")
        if kind == "KIND_CPU" and model.backend() == TENSORRT:
            model.report_field("TensorRT engines run on GPUs only; wanted KIND_GPU", "instance_group", index, "kind")


def _batching(model: ModelFolder) -> None:
    message = model.config.message
    if not message.HasField("dynamic_batching"):
        return
    batching = message.dynamic_batching
    if message.max_batch_size < 1:
        text = "dynamic_batching has no effect with max_batch_size 0; give one, or leave it out"
        model.report_field(text, "dynamic_batching", warning=True)
    for size in batching.preferred_batch_size:
        if not 1 <= size <= max(message.max_batch_size, 1):
            text = f"preferred_batch_size {size} lies outside of 1 to max_batch_size {message.max_batch_size}"
            model.report_field(text, "dynamic_batching", "preferred_batch_size")
    if batching.HasField("default_queue_policy"):
        text = "default_queue_policy holds the batcher up: requests wait though an instance is free; leave it out"
        model.report_field(text, "dynamic_batching", "default_queue_policy", warning=True)


def versions(model: ModelFolder) -> list[Path]:
    """The folders that Triton would take for versions, those that it will not serve left out."""
    found = {}
    for folder in sorted(item for item in model.path.iterdir() if item.is_dir() and item.name not in OTHER_FOLDERS):
        name = folder.name
        if name.isascii() and name.isdigit() and name == str(int(name)):
            found[int(name)] = folder
        else:
            model.report(folder, "is not the number of a version; Triton ignores it; wanted 1, 2, ... without leading zeros", warning=True)
    policy = model.config.message.version_policy
    if not found:
        model.report(model.path, "holds no version; wanted a folder 1 with the model in it")
    if policy.HasField("specific"):
        for version in policy.specific.versions:
            if version not in found:
                model.report_field(f"version {version} is served and is not there", "version_policy")
        return [found[version] for version in sorted(found) if version in policy.specific.versions]
    latest = len(found) if policy.HasField("all") else max(policy.latest.num_versions, 1)
    return [found[version] for version in sorted(found)][-latest:]


def libraries(model: ModelFolder) -> list[Path] | None:
    """The libraries that the configuration names; None when one will not do."""
    operations = model.config.message.model_operations
    names = list(operations.op_library_filename)
    place = ("model_operations", "op_library_filename")
    if names and model.backend() != ONNX:
        model.report_field("op_library_filename is read by backend onnxruntime only; leave it out", *place, warning=True)
    found = [_library(model, name, place) for name in names]
    return [path for path in found if path is not None] if None not in found else None


def _library(model: ModelFolder, name: str, place: tuple[str, ...]) -> Path | None:
    path = Path(name)
    if not path.is_absolute():
        model.report_field(f"library {name!r} is looked for where the server was started; wanted an absolute path", *place)
        return None
    if not path.is_file():
        beside = model.path.parent / path.name
        if not beside.is_file():
            model.report_field(f"library {name} does not exist here, nor does {path.name} in {model.path.parent}", *place)
            return None
        model.notes.append(f"{model.path.name}: {beside} was used; the server will look for it at {name}")
        path = beside
    content = path.read_bytes()
    if not content.startswith(b"\x7fELF"):
        model.report_field(f"{path} is no shared library", *place)
        return None
    if ENTRY_POINT not in content:
        model.report_field(f"{path} is no library of operators for ONNX Runtime: it has no function {ENTRY_POINT.decode()}", *place)
        return None
    return path.resolve()
