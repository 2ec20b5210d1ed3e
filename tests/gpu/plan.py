"""The steps in order, and what each would try: said on machines without a GPU."""

from __future__ import annotations

from typing import Any

from deploydcn.ops import GPU_OPS
from tests.gpu import models, steps
from tests.gpu.models import CHAIN, LAYERS
from tests.gpu.statistics import interleaved
from tests.gpu.steps import Step
from tests.gpu.timing import timing


def _environment() -> list[str]:
    return ["what `deploydcn doctor` finds: driver, GPU, TensorRT, plugin library, ONNX Runtime"]


def _layout() -> list[str]:
    patterns = [pattern.name for pattern in models.layout_patterns()]
    return [f"float16, bfloat16 and TF32: {', '.join(patterns)}; sizes {', '.join('x'.join(map(str, size)) for size in steps.SIZES)}"]


def _conformance() -> list[str]:
    lines = []
    for op in GPU_OPS:
        rows = sum(not models.is_empty(case) for case in op.cases)
        types = [models.type_label(row) for row in models.gpu_types(op)]
        lines.append(f"{op.spec.name}: {rows} rows x {len(types)} type rows ({', '.join(types)}), against the float64 reference")
    return lines


def _runner() -> list[str]:
    return ["dynamic shapes in sequence, CUDA graphs, four threads, torch tensors in place and on torch's stream"]


def _samples() -> list[str]:
    return [f"{sample.file}: float32 and float16 engines against PyTorch, {1 + len(sample.sizes)} sizes" for sample in steps.SAMPLES]


def _timing() -> list[str]:
    rounds = (interleaved.__kwdefaults__ or {})["rounds"]
    return [
        f"{CHAIN} layers in a row, median of {rounds} interleaved rounds, CUDA events; float32 and float16",
        "our plugin against a dense convolution (TensorRT, torch), ONNX Runtime CUDA's DeformConv and torchvision",
        ", ".join(map(str, LAYERS)),
    ]


STEPS = (
    Step("environment", "driver, GPU, versions, libraries", _environment, steps.environment),
    Step("layout", "tensor-core layout micro-test: products of matrices that must be exact", _layout, steps.layout),
    Step("conformance", "engines of the conformance table's rows", _conformance, steps.conformance),
    Step("runner", "the engine runner's promises", _runner, steps.runner),
    Step("samples", "engines of whole models", _samples, steps.samples),
    Step("timing", "time of a layer", _timing, timing),
)


def plan() -> list[dict[str, Any]]:
    return [{"step": step.name, "what": step.what, "items": step.items()} for step in STEPS]
