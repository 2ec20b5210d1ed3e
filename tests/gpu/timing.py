"""Time of a layer: our plugin in TensorRT against ONNX Runtime's DeformConv, torchvision's, and a dense convolution."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx

from deploydcn.errors import DeployDcnError
from deploydcn.libraries import register_ort_ops
from deploydcn.runners.cuda_memory import Cuda, Event
from tests.conformance.tolerances import relative_error
from tests.gpu.models import CHAIN, LAYERS, Layer, chain_arrays, chain_model
from tests.gpu.report import Outcome, failed, passed, skipped
from tests.gpu.statistics import Timing, interleaved
from tests.gpu.steps import Machine

Run = Callable[[], Any]
OURS, DENSE = "TensorRT, our plugin", "TensorRT, dense"
AGREEMENT = {"float32": 1e-4, "float16": 3e-2}  # CHAIN layers, each rounded; see parity.tolerance
SLEEP_CYCLES = 40_000_000  # about 20 ms, in which the host enqueues a round: launching is not what is timed


def timing(machine: Machine) -> Iterator[Outcome]:
    import torch

    if not torch.cuda.is_available():
        yield skipped("timing", "everything", "this torch has no CUDA; torch.cuda.is_available() is False")
        return
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.cuda.set_stream(torch.cuda.Stream())  # not the default stream: TensorRT would synchronise the device around it
    for layer in LAYERS:
        for dtype in ("float32", "float16"):
            runs, absent = candidates(machine, layer, dtype)
            item = f"{layer} {dtype}"
            yield from (skipped("timing", f"{item}: {name}", why) for name, why in absent.items())
            if OURS not in runs:
                yield failed("timing", item, f"no engine to time: {absent[OURS]}")
                continue
            yield from disagreements(item, runs, AGREEMENT[dtype])
            measures = {name: functools.partial(_measure, run) for name, run in runs.items()}
            yield from figures(item, interleaved(measures, target_ms=5))


def figures(item: str, timings: Mapping[str, Timing]) -> Iterator[Outcome]:
    """Microseconds a layer, and how many times as long as a dense convolution and as the others it takes."""
    ours = timings[OURS]
    ratios = {f"of {name}": ours.ratio_to(other) for name, other in timings.items() if name != OURS}
    micro = {name: 1e3 * timing.median / CHAIN for name, timing in timings.items()}
    detail = f"{micro[OURS]:.1f} us a layer (+-{ours.spread:.0%}); " + ", ".join(
        f"{ratio:.2f}x {name.removeprefix('of ')} ({micro[name.removeprefix('of ')]:.1f} us)" for name, ratio in ratios.items()
    )
    yield passed("timing", item, detail, **{f"us {name}": value for name, value in micro.items()}, **ratios, spread=ours.spread)


def disagreements(item: str, runs: Mapping[str, Run], tolerance: float) -> Iterator[Outcome]:
    """Programs that are compared in speed compute the same: all deformable ones, and the dense ones."""
    results = {name: np.asarray(run().float().cpu().numpy()) for name, run in runs.items()}
    for dense in (False, True):
        group = [name for name in results if ("dense" in name) == dense]
        for name in group[1:]:
            error = relative_error(results[name], results[group[0]])
            if not error <= tolerance:
                yield failed("timing", f"{item}: {name}", f"differs from {group[0]} by {error:.3g} of the largest value", error=error)


def candidates(machine: Machine, layer: Layer, dtype: str) -> tuple[dict[str, Run], dict[str, str]]:
    """Programs of CHAIN layers on torch's current stream, output returned as a torch tensor; and why others are missing."""
    import torch

    tensors = {name: torch.from_numpy(array).cuda().to(getattr(torch, dtype)) for name, array in chain_arrays(layer).items()}
    makers: dict[str, Callable[[], Run]] = {
        OURS: lambda: _engine(machine, layer, dtype, "ours", tensors),
        DENSE: lambda: _engine(machine, layer, dtype, "dense", tensors),
        "ONNX Runtime CUDA, DeformConv": lambda: _onnxruntime(chain_model(layer, dtype, "standard"), tensors, ours=False),
        "ONNX Runtime CUDA, our operator": lambda: _onnxruntime(chain_model(layer, dtype, "ours"), tensors, ours=True),
        "torchvision deform_conv2d": lambda: functools.partial(torchvision_chain, tensors),
        "torch dense": lambda: functools.partial(dense_chain, tensors, channels_last=dtype == "float16"),
    }
    runs, absent = {}, {}
    for name, make in makers.items():
        try:
            run = make()
            run()
            runs[name] = run
        except (DeployDcnError, ImportError, RuntimeError, ValueError) as error:
            absent[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            absent[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return runs, absent


def torchvision_chain(tensors: Mapping[str, Any]) -> Any:
    from torchvision.ops import deform_conv2d

    x = tensors["x"]
    for _ in range(CHAIN):
        x = deform_conv2d(x, tensors["offset"], tensors["weight"], tensors["bias"], padding=1, mask=tensors["mask"])
    return x


def dense_chain(tensors: Mapping[str, Any], *, channels_last: bool) -> Any:
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, weight = tensors["x"].contiguous(memory_format=layout), tensors["weight"].contiguous(memory_format=layout)
    for _ in range(CHAIN):
        x = torch.nn.functional.conv2d(x, weight, tensors["bias"], padding=1)
    return x


def _engine(machine: Machine, layer: Layer, dtype: str, kind: str, tensors: Mapping[str, Any]) -> Run:
    import torch

    name = f"chain_{kind}_{layer.name}_{layer.batch}_{dtype}"
    engine = machine.load(chain_model(layer, dtype, kind), name)
    feeds = {info.name: tensors[info.name] for info in engine.inputs}
    target = torch.empty_like(tensors["x"])

    def run() -> Any:
        engine.run_on_device(feeds, out={"y": target}, stream=torch.cuda.current_stream())
        return target

    return run


def _onnxruntime(model: onnx.ModelProto, tensors: Mapping[str, Any], *, ours: bool) -> Run:
    """On torch's stream, in torch's memory, without waiting; nodes that would run on the CPU are refused."""
    import onnxruntime as ort
    import torch

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ValueError(f"onnxruntime has {', '.join(ort.get_available_providers())} only; pip install onnxruntime-gpu")
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if ours:
        register_ort_ops(options)
    stream = torch.cuda.current_stream().cuda_stream
    provider = ("CUDAExecutionProvider", {"user_compute_stream": str(stream), "use_tf32": "0"})
    session = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
    target = torch.empty_like(tensors["x"])
    binding, element = session.io_binding(), np.float16 if target.dtype == torch.float16 else np.float32
    for node in session.get_inputs():
        tensor = tensors[node.name]
        binding.bind_input(node.name, "cuda", tensor.device.index, element, tuple(tensor.shape), tensor.data_ptr())
    binding.bind_output("y", "cuda", target.device.index, element, tuple(target.shape), target.data_ptr())
    no_wait = ort.RunOptions()
    no_wait.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run() -> Any:
        session.run_with_iobinding(binding, no_wait)
        return target

    return run


def _measure(run: Run, times: int) -> float:
    """Milliseconds on the GPU for so many runs, by CUDA events; the GPU sleeps while the host enqueues."""
    import torch

    cuda, stream = Cuda(torch.cuda.current_device()), torch.cuda.current_stream().cuda_stream
    start, end = Event(cuda, timing=True), Event(cuda, timing=True)
    torch.cuda._sleep(SLEEP_CYCLES)
    start.record(stream)
    for _ in range(times):
        run()
    end.record(stream)
    end.synchronize()
    return end.milliseconds_since(start)
