"""What a quantization did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn.parity import compare


@dataclass(frozen=True)
class LayerChoice:
    """A layer with weights. kept: why it stays in float32; "" where it computes with 8 bits."""

    node: str
    operator: str
    kept: str = ""


@dataclass(frozen=True)
class OutputAgreement:
    """One output of the 8-bit file against the float32 file's, over all samples. sqnr_db: signal to noise, in decibels. channels_db: the
    same with every channel (index 1 of 3 or more dimensions) weighed alike, so that boxes in pixels hide no scores; else equal to it. top1:
    share of rows of a (N, classes) output with the same argmax, else None. mismatch: why the outputs cannot be compared, else ""."""

    name: str
    sqnr_db: float
    channels_db: float
    cosine: float
    max_abs: float
    top1: float | None
    mismatch: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; infinities become strings, since JSON has none."""
        return {key: str(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(self).items()}


class Agreement:
    """Sums up one output over samples."""

    def __init__(self, name: str) -> None:
        self.name, self.mismatch, self.max_abs = name, "", 0.0
        self.signal = self.noise = np.zeros(1)  # per channel
        self.product = self.power = 0.0
        self.rows, self.agreeing = 0, 0.0

    def add(self, wanted: np.ndarray, got: np.ndarray) -> None:
        """One sample."""
        if self.mismatch or not wanted.size:
            return
        (result,) = compare({self.name: wanted}, {self.name: got})
        self.mismatch = result.mismatch
        if self.mismatch:
            return
        a, b = wanted.astype(np.float64), got.astype(np.float64)
        axes = tuple(axis for axis in range(a.ndim) if axis != 1) if a.ndim >= 3 else None
        self.max_abs = max(self.max_abs, result.max_abs)
        self.signal = self.signal + np.sum(a**2, axis=axes)
        self.noise = self.noise + np.sum((a - b) ** 2, axis=axes)
        self.product += float(np.sum(a * b))
        self.power += float(np.sum(b**2))
        if result.top1 is not None:
            self.rows += len(a)
            self.agreeing += result.top1 * len(a)

    def result(self) -> OutputAgreement:
        """All samples together."""
        signal, noise = float(self.signal.sum()), float(self.noise.sum())
        alive = self.signal > 0
        shares = self.noise[alive] / self.signal[alive]
        norms = math.sqrt(signal * self.power)
        return OutputAgreement(
            self.name,
            sqnr_db=_decibels(noise / signal if signal else math.inf),
            channels_db=_decibels(float(shares.mean()) if shares.size else math.inf),
            cosine=self.product / norms if norms else float(noise == 0),
            max_abs=self.max_abs,
            top1=self.agreeing / self.rows if self.rows else None,
            mismatch=self.mismatch,
        )


def _decibels(noise: float) -> float:
    """Signal to noise of a noise relative to the signal."""
    return math.inf if noise == 0 else -10 * math.log10(noise) if math.isfinite(noise) else -math.inf


@dataclass(frozen=True)
class QuantizeReport:
    """A quantized file. layers: every layer with weights, and why it stays in float32 if it does. agreement: with the float32 file, on the
    calibration data. operators: how many nodes of each deformable or deploydcn operator. bytes: of the file and of its source."""

    path: Path
    source: Path
    target: str
    method: str
    activations: str
    samples: int
    layers: tuple[LayerChoice, ...]
    operators: Mapping[str, int]
    agreement: tuple[OutputAgreement, ...]
    bytes: int
    source_bytes: int
    seconds: float
    notes: tuple[str, ...] = field(default=())

    @property
    def quantized(self) -> int:
        """Layers that compute with 8 bits."""
        return sum(not layer.kept for layer in self.layers)

    def summary(self) -> str:
        """One line for logs."""
        worst = min((output.sqnr_db for output in self.agreement if not output.mismatch), default=math.nan)
        top1 = [output.top1 for output in self.agreement if output.top1 is not None]
        proof = f"{worst:.1f} dB over {self.samples} samples" + (f", same class {min(top1):.1%}" if top1 else "")
        return (
            f"{self.path}: {self.quantized} of {len(self.layers)} layers with 8 bits ({self.method}, {self.activations}), "
            f"{self.bytes / 1e6:.1f} MB of {self.source_bytes / 1e6:.1f}; {proof}"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "path": str(self.path),
            "source": str(self.source),
            "target": self.target,
            "method": self.method,
            "activations": self.activations,
            "samples": self.samples,
            "layers": [asdict(layer) for layer in self.layers],
            "operators": dict(self.operators),
            "agreement": [output.to_json() for output in self.agreement],
            "bytes": self.bytes,
            "source_bytes": self.source_bytes,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }
