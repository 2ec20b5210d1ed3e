"""The steps of the acceptance. Each yields outcomes; none raises: what goes wrong is an outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import deploydcn
from deploydcn import doctor
from deploydcn.errors import DeployDcnError
from deploydcn.ops import GPU_OPS, Op
from deploydcn.ops.case import Case
from deploydcn.parity import default_tolerance
from deploydcn.runners.engine_runner import EngineRunner
from tests.conformance.single_node import is_constant, single_node_model
from tests.conformance.tolerances import TOLERANCE, gpu_tolerance, largest_error, relative_error
from tests.gpu import models
from tests.gpu.models import Types
from tests.gpu.report import Outcome, failed, judged, passed, skipped

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Machine:
    """runtime: "tensorrt" or "tensorrt-rtx". folder: for models and engines. capability: (8, 6) for compute capability 8.6."""

    runtime: str
    folder: Path
    capability: tuple[int, int]

    def engine(self, model: onnx.ModelProto | Path, name: str, **options: Any) -> Path:
        """Build an engine for this GPU."""
        self.folder.mkdir(parents=True, exist_ok=True)
        source = model if isinstance(model, Path) else self.folder / f"{name}.onnx"
        if not isinstance(model, Path):
            onnx.save(model, str(source))
        if self.runtime == "tensorrt-rtx" and self.capability < (8, 0):  # which it builds for when told so only
            options = {"compute_capabilities": ["75"], **options}
        path = self.folder / f"{name}.engine"
        deploydcn.build_engine(source, path, runtime=self.runtime, **options)
        return path

    def load(self, model: onnx.ModelProto | Path, name: str, *, runner: Mapping[str, Any] | None = None, **options: Any) -> EngineRunner:
        return self.open(self.engine(model, name, **options), **(runner or {}))

    def open(self, path: Path, **options: Any) -> EngineRunner:
        loaded = deploydcn.load(path, self.runtime, **options)
        assert isinstance(loaded, EngineRunner)
        return loaded

    @cached_property
    def has_bfloat16(self) -> bool:
        """Tensor cores for bfloat16 and TF32, from compute capability 8.0 on."""
        return self.capability >= (8, 0)


@dataclass(frozen=True)
class Step:
    """name: for --step. what: one line. items: what it would try, for the plan."""

    name: str
    what: str
    items: Callable[[], list[str]]
    run: Callable[[Machine], Iterator[Outcome]]


# ----------------------------------------------------------------------------------------------------------- environment
NEEDED = ("NVIDIA driver", "GPU", "cuda-bindings", "TensorRT plugins", "torch", "onnxruntime")


def environment(machine: Machine) -> Iterator[Outcome]:
    findings = doctor.examine()
    for finding in findings:
        bad = finding.state == "broken" or (finding.state != "ok" and finding.subject in NEEDED)
        detail = f"{finding.detail}{f'; {finding.fix}' if finding.fix else ''}"
        state = "fail" if bad else "pass" if finding.state == "ok" else "skip"
        yield Outcome("environment", finding.subject, state, detail)


# ----------------------------------------------------------------------------------------------------------------- layout
SIZES = ((64, 64, 64), (136, 72, 81))  # a full tile; and edges of every kind: output channels, input channels, pixels


def layout(machine: Machine) -> Iterator[Outcome]:
    for dtype, tf32 in (("float16", None), ("bfloat16", None), ("float32", True)):
        what = "TF32" if tf32 else dtype
        if what != "float16" and not machine.has_bfloat16:
            yield skipped("layout", what, f"compute capability {machine.capability[0]}.{machine.capability[1]} has no such tensor cores")
            continue
        for size in SIZES:
            patterns = models.layout_patterns(*size)
            chosen = patterns if size == SIZES[0] else [pattern for pattern in patterns if pattern.name == "signs"]
            item = f"{what} {'x'.join(map(str, size))}"
            try:
                runner = machine.load(models.layout_model(chosen[0], dtype), f"layout_{what}_{size[0]}", tf32=tf32)
                for pattern in chosen:
                    got = runner.run(models.layout_inputs(pattern, dtype))["Y"]
                    wrong = models.explain(pattern, got)
                    yield (
                        failed("layout", f"{item} {pattern.name}", wrong) if wrong else passed("layout", f"{item} {pattern.name}", "exact")
                    )
            except DeployDcnError as error:
                yield failed("layout", item, str(error))


# ------------------------------------------------------------------------------------------------------------ conformance
def conformance(machine: Machine) -> Iterator[Outcome]:
    for op in GPU_OPS:
        for types in models.gpu_types(op):
            if types["T"] == "bfloat16" and not machine.has_bfloat16:
                yield skipped("conformance", f"{op.spec.name} {models.type_label(types)}", "bfloat16 needs compute capability 8.0")
                continue
            yield from _rows(machine, op, types)


def _rows(machine: Machine, op: Op, types: Types) -> Iterator[Outcome]:
    """All rows in one engine; where that does not work, one by one, so that the row at fault is named."""
    label = f"{op.spec.name} {models.type_label(types)}"
    for case in op.cases:
        if models.is_empty(case):
            yield skipped("conformance", f"{label} {case.id}", "an engine takes no empty input: ranges of shapes begin at 1")
    rows = {case.id: case for case in op.cases if not models.is_empty(case)}
    try:
        outputs = _run_rows(machine, op, rows, types)
    except DeployDcnError:
        outputs = {}
        for case in rows.values():
            try:
                outputs.update(_run_rows(machine, op, {case.id: case}, types))
            except DeployDcnError as error:
                yield failed("conformance", f"{label} {case.id}", str(error))
    for key, got in outputs.items():
        wanted = op.reference(models.inputs_of(op, rows[key], types), rows[key].attributes)
        same_shapes = [output.shape for output in got] == [output.shape for output in wanted]
        error = largest_error(got, wanted) if same_shapes else float("inf")
        yield judged("conformance", f"{label} {key}", error, gpu_tolerance(op, types), rows[key].why)


def _run_rows(machine: Machine, op: Op, rows: Mapping[str, Case], types: Types) -> dict[str, list[np.ndarray]]:
    merged = models.side_by_side({key: models.row_model(op, case, types) for key, case in rows.items()})
    name = f"{op.spec.snake_name}_{models.type_label(types).replace('/', '_')}_{next(iter(rows)) if len(rows) == 1 else 'rows'}"
    feeds = {f"{key}.{tensor}": array for key, case in rows.items() for tensor, array in models.row_inputs(op, case, types).items()}
    outputs = machine.load(merged, name).run(feeds)
    return {key: [outputs[f"{key}.{tensor.name}"] for tensor in op.spec.outputs] for key in rows}


# ----------------------------------------------------------------------------------------------------------------- runner
SHAPES = ((1, 8, 11, 13), (3, 8, 20, 9), (2, 8, 4, 4))


def runner(machine: Machine) -> Iterator[Outcome]:
    """The runner's promises, on DeformConv2d with every size dynamic."""
    op, dtype = GPU_OPS[0], "float16"
    cases = [_dynamic_case(shape) for shape in SHAPES]
    types = {"T": dtype, "T1": dtype}
    constants = {name: value for name, value in models.inputs_of(op, cases[0], types).items() if is_constant(name)}
    feeds = [models.row_inputs(op, case, types) for case in cases]
    wanted = [op.reference({**feed, **constants}, cases[0].attributes)[0] for feed in feeds]
    fixed = {name: value.shape for name, value in constants.items()}
    free = {name: ("n", value.shape[1], "h", "w") for name, value in feeds[0].items()}
    profile = {name: [(1, size[1], 2, 2), (2, size[1], 12, 12), (4, size[1], 32, 32)] for name, size in free.items()}
    model = single_node_model(op.spec, {"X": free["X"], "W": fixed["W"], "offset": free["offset"], "B": fixed["B"], "mask": free["mask"]},
                              cases[0].attributes, types, constants=constants)  # fmt: skip
    try:
        path = machine.engine(model, "dynamic", profiles=[profile])
        plain, graphs = machine.open(path), machine.open(path, cuda_graph=True, contexts=len(SHAPES))

        def sequence(run: Callable[[dict[str, np.ndarray]], np.ndarray], times: int = 3) -> float:
            return max(relative_error(run(feed), result) for _ in range(times) for feed, result in zip(feeds, wanted, strict=True))

        yield judged("runner", "shapes in sequence", sequence(lambda feed: plain.run(feed)["Y"]), TOLERANCE[dtype])
        yield judged("runner", "CUDA graphs", sequence(lambda feed: graphs.run(feed)["Y"]), TOLERANCE[dtype])
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda feed: plain.run(feed)["Y"], feeds * 20))
        error = max(relative_error(got, result) for got, result in zip(results, wanted * 20, strict=True))
        yield judged("runner", "four threads", error, TOLERANCE[dtype])
        yield from _torch_interop(plain, feeds, wanted, TOLERANCE[dtype])
    except DeployDcnError as error:
        yield failed("runner", "dynamic shapes", str(error))


def _dynamic_case(shape: tuple[int, int, int, int]) -> Case:
    n, c, h, w = shape
    shapes = {"X": shape, "W": (6, c, 3, 3), "offset": (n, 18, h, w), "B": (6,), "mask": (n, 9, h, w)}
    return Case("dynamic", shapes, {"pads": (1, 1, 1, 1)})


def _torch_interop(
    plain: EngineRunner, feeds: list[dict[str, np.ndarray]], wanted: list[np.ndarray], tolerance: float
) -> Iterator[Outcome]:
    import torch

    if not torch.cuda.is_available():
        yield skipped("runner", "torch tensors", "this torch has no CUDA")
        return
    stream = torch.cuda.Stream()
    errors = []
    for feed, result in zip(feeds, wanted, strict=True):
        tensors = {name: torch.from_numpy(array).cuda() for name, array in feed.items()}
        got = torch.from_dlpack(plain.run_on_device(tensors)["Y"])
        errors.append(relative_error(got.float().cpu().numpy(), result))
        with torch.cuda.stream(stream):
            later = {name: tensor * 1 for name, tensor in tensors.items()}  # still being computed when the engine is enqueued
            target = torch.empty(result.shape, dtype=torch.float16, device="cuda")
            plain.run_on_device(later, out={"Y": target}, stream=stream)
            errors.append(relative_error((target * 1).cpu().float().numpy(), result))
    yield judged("runner", "torch tensors, also on torch's stream", max(errors), tolerance)


# ---------------------------------------------------------------------------------------------------------------- samples
@dataclass(frozen=True)
class Sample:
    """profile: of input x. sizes: (height, width) of parts of the example to compare at, beside all of it."""

    file: str
    profile: tuple[tuple[int, ...], ...]
    sizes: tuple[tuple[int, int], ...]


SAMPLES = (
    Sample("s01_resnet50_dcn.py", ((1, 3, 160, 160), (1, 3, 224, 224), (4, 3, 256, 256)), ((192, 160),)),
    Sample("s02_yolov8n_dcn.py", ((1, 3, 320, 320), (1, 3, 640, 640), (2, 3, 640, 640)), ((480, 640),)),
)


def samples(machine: Machine) -> Iterator[Outcome]:
    for sample in SAMPLES:
        name = sample.file.removesuffix(".py")
        try:
            reference = deploydcn.load(f"{ROOT / 'samples' / sample.file}:build", "torch")
            path = machine.folder / f"{name}.onnx"
            export_sample(reference, path)
        except DeployDcnError as error:
            yield failed("samples", name, str(error))
            continue
        for dtype in ("float32", "float16"):
            try:
                built = machine.engine(path, f"{name}_{dtype}", profiles=[{"x": sample.profile}], fp16=dtype == "float16")
                report = deploydcn.verify(reference, machine.open(built), sample_inputs(reference, sample), dtype=dtype)
            except DeployDcnError as error:
                yield failed("samples", f"{name} {dtype}", str(error))
                continue
            _, worst = report.worst
            yield judged("samples", f"{name} {dtype}", worst.worst_channel, default_tolerance(dtype).relative, worst.mismatch)


def export_sample(reference: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (tensor,) = reference.signature.tensors().values()
    deploydcn.export_onnx(reference.model, (tensor,), path, dynamic_shapes=({0: "n", 2: "h", 3: "w"},), target="tensorrt", check=False)


def sample_inputs(reference: Any, sample: Sample) -> list[dict[str, np.ndarray]]:
    """The example, and parts of it of other sizes."""
    ((name, example),) = reference.example.items()
    return [{name: example}, *({name: np.ascontiguousarray(example[..., :height, :width])} for height, width in sample.sizes)]
