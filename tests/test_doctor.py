"""`deploydcn doctor` on machines we do not have: drivers, GPUs, packages, libraries; it never raises and is quick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploydcn import doctor, nvidia, tensorrt_runtimes
from deploydcn.doctor import Finding, examine
from deploydcn.errors import UserError
from deploydcn.ops import GPU_OPS


class FakeLibcuda:
    """As libcuda.so.1, called through ctypes. gpus: (name, capability); status: of cuInit."""

    def __init__(self, cuda: int = 13000, gpus: tuple[tuple[str, tuple[int, int]], ...] = (), status: int = 0) -> None:
        self.cuda, self.gpus, self.status = cuda, gpus, status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.cuda
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = self.gpus[device.value][0].encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:  # noqa: N802
        memory._obj.value = 24 << 30
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: Any) -> int:  # noqa: N802
        number._obj.value = self.gpus[device.value][1][attribute - 75]
        return 0


ADA = ("NVIDIA RTX 4000 Ada", (8, 9))


def on(monkeypatch: pytest.MonkeyPatch, library: FakeLibcuda | None, **versions: str | None) -> dict[str, Finding]:
    """Findings by subject. versions: of packages, by name with _ for -; None: not installed."""
    monkeypatch.setattr(nvidia, "_library", lambda: library)
    monkeypatch.setattr(nvidia, "_release", lambda: "580.65.06")
    real, known = doctor._version, {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(doctor, "_version", lambda package: known[package] if package in known else real(package))
    return {finding.subject: finding for finding in examine()}


def test_a_machine_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = on(monkeypatch, FakeLibcuda(gpus=(ADA,)), cuda_bindings="13.0.1")
    assert findings["NVIDIA driver"] == Finding("NVIDIA driver", "ok", "580.65.06, for CUDA up to 13.0")
    assert findings["GPU"] == Finding("GPU", "ok", "NVIDIA RTX 4000 Ada, compute capability 8.9, 24 GiB")
    assert findings["cuda-bindings"] == Finding("cuda-bindings", "ok", "CUDA runtime 13.0.1")


@pytest.mark.parametrize(
    ("library", "subject", "state", "detail", "fix"),
    [
        (None, "NVIDIA driver", "missing", "libcuda.so.1 is not found", "docker run --gpus all"),
        (None, "GPU", "missing", "no NVIDIA driver", ""),
        (FakeLibcuda(status=100), "GPU", "missing", "the driver sees no GPU", "nvidia-smi"),
        (FakeLibcuda(status=803), "GPU", "missing", "different versions; reboot", "nvidia-smi"),
        (FakeLibcuda(status=34), "GPU", "missing", "is the stub", ""),
        (FakeLibcuda(status=4711), "GPU", "missing", "CUresult 4711", ""),
        (FakeLibcuda(), "GPU", "missing", "CUDA_VISIBLE_DEVICES", ""),
        (
            FakeLibcuda(gpus=(("NVIDIA GTX 1080", (6, 1)),)),
            "GPU",
            "broken",
            "compute capability 6.1, 24 GiB; our kernels need 7.5",
            "Turing",
        ),
        (
            FakeLibcuda(12040, (ADA,)),
            "cuda-bindings",
            "broken",
            "13.5.0; the driver runs CUDA up to 12.4",
            "pip install 'cuda-bindings<13'",
        ),
    ],
)
def test_drivers_and_gpus(
    monkeypatch: pytest.MonkeyPatch, library: FakeLibcuda | None, subject: str, state: str, detail: str, fix: str
) -> None:
    finding = on(monkeypatch, library, cuda_bindings="13.5.0")[subject]
    assert finding.state == state
    assert detail in finding.detail
    assert fix in finding.fix


@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"])
def test_tensorrt_installed_or_not(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(tensorrt_runtimes, "_spec", lambda module: module if module == package else None)
    versions = {"tensorrt": "10.16.1", "tensorrt_rtx": None, "tensorrt_rtx_cu13_bindings": "1.7.1"}
    findings = on(monkeypatch, None, **versions)
    rtx = package != "tensorrt"
    there, absent = ("TensorRT-RTX", "TensorRT") if rtx else ("TensorRT", "TensorRT-RTX")
    assert findings[there] == Finding(there, "ok", f"{'1.7.1' if rtx else '10.16.1'} (module {package})")
    assert findings[absent].state == "missing"
    assert findings[absent].fix == f"pip install 'deploydcn[{'gpu' if rtx else 'rtx'}]'"


def test_tensorrt_8_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_runtimes, "_spec", lambda module: module if module == "tensorrt" else None)
    finding = on(monkeypatch, None, tensorrt="8.6.1")["TensorRT"]
    assert (finding.state, finding.detail) == ("broken", "8.6.1; our plugins need 10 or newer")


def test_plugin_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found(path: Path) -> Finding:
        monkeypatch.setattr("deploydcn.libraries.plugin_library_path", lambda: path)
        return on(monkeypatch, None)["TensorRT plugins"]

    def absent() -> Path:
        raise UserError("there is no library; build it")

    (tmp_path / "broken.so").write_text("no library")
    assert "broken.so does not load" in found(tmp_path / "broken.so").detail
    from deploydcn.libraries import ort_library_path

    assert found(ort_library_path()).detail.endswith("lacks getCreators, setLoggerFinder")
    monkeypatch.setattr("deploydcn.libraries.plugin_library_path", absent)
    assert on(monkeypatch, None)["TensorRT plugins"] == Finding("TensorRT plugins", "missing", "there is no library", "build it")


@pytest.mark.backend("rtx")
def test_the_real_plugin_library_loads_and_lists_its_plugins() -> None:
    (finding,) = [finding for finding in examine() if finding.subject == "TensorRT plugins"]
    plugins = len(GPU_OPS) + 1  # the standard DeformConv
    assert finding == Finding("TensorRT plugins", "ok", f"libdeploydcn_trt.so loads and has {plugins} plugins")


@pytest.mark.backend("ort")
def test_onnxruntime_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on(monkeypatch, None)["onnxruntime providers"].state == "ok"
    finding = on(monkeypatch, FakeLibcuda(gpus=(ADA,)))["onnxruntime providers"]
    assert finding.state == "missing"
    assert "there is a GPU it does not use" in finding.detail
    assert "deploydcn[gpu]" in finding.fix


def broken_call(*_: object) -> Any:
    raise OSError("the disk is on fire")


@pytest.mark.parametrize("target", ["deploydcn.nvidia.driver", "deploydcn.nvidia.gpus", "deploydcn.libraries.plugin_library_path"])
def test_it_never_raises(monkeypatch: pytest.MonkeyPatch, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(target, broken_call)
    assert any("the disk is on fire" in finding.detail and finding.state == "broken" for finding in examine())


def test_what_is_missing_or_broken_has_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries: tuple[Callable[[], FakeLibcuda | None], ...] = (lambda: None, lambda: FakeLibcuda(11080, (("old", (5, 0)),)))
    for library in libraries:
        findings = on(monkeypatch, library(), cuda_bindings="12.9", torch=None, tensorrt="8.5")
        for finding in findings.values():
            assert finding.fix or finding.state == "ok" or (finding.subject == "GPU" and library() is None), finding


@pytest.mark.backend("ort")
def test_it_imports_no_heavy_package() -> None:
    code = (
        "import sys; from deploydcn.doctor import examine; examine(); "
        "print({'torch', 'tensorrt', 'tensorrt_rtx_bindings', 'onnx_ir'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
