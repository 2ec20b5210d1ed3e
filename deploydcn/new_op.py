"""`make new-op NAME=MyOp`: the skeleton of an operator, in every place an operator lives, compiling and passing its tests.

The skeleton computes Y = X * factor; its files mark what to replace. It writes deploydcn/ops/<op>/, plugins/ops/<op>/ and
one line in each list of operators (after the marks `new-op: ...`).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from deploydcn.errors import DeployDcnError, InvalidArgument

PYTHON_FILES = {
    "__init__.py": """\
from deploydcn.ops.{snake}.cases import CASES
from deploydcn.ops.{snake}.reference import reference
from deploydcn.ops.{snake}.spec import SPEC

__all__ = ["CASES", "SPEC", "reference"]
""",
    "spec.py": '''\
"""{name}: Y = X * factor. Replace this by what your operator computes, with the source of the formula."""

from __future__ import annotations

from deploydcn.spec import Attr, OpSpec, Tensor

SPEC = OpSpec(
    name="{name}",
    snake_name="{snake}",
    doc="Y = X * factor.",
    attributes=(Attr("factor", "float", 1.0, python_name="factor", doc="what X is multiplied by"),),
    inputs=(Tensor("X", ("N", "C", "H", "W"), python_name="input"),),
    outputs=(Tensor("Y", ("N", "C", "H", "W"), python_name="output"),),
    type_rows=({{"T": "float32"}}, {{"T": "float64"}}, {{"T": "float16"}}),
)
''',
    "reference.py": '''\
"""{name} in float64 NumPy, written from the formula in the spec. It shares no code with any kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploydcn.ops.{snake}.spec import SPEC


def reference(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """Compute [Y] in float64 from X (N, C, H, W)."""
    factor = SPEC.complete_attributes(attributes)["factor"]
    return [inputs["X"].astype(np.float64) * factor]
''',
    "cases.py": '''\
"""Conformance rows of {name}: add one for every way an implementation could be wrong."""

from __future__ import annotations

from deploydcn.ops.case import Case

CASES: tuple[Case, ...] = (
    Case("default", {{"X": (2, 3, 5, 4)}}),
    Case("factor", {{"X": (1, 3, 5, 4)}}, {{"factor": -2.5}}),
    Case("batch_0", {{"X": (0, 3, 5, 4)}}),
)
''',
}

CPP_FILES = {
    "{snake}_cpu.h": """\
// The CPU side of {snake}, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::{snake} {{

extern const CpuOp kCpuOp;

}}  // namespace deploydcn::{snake}
""",
    "{snake}_cpu.cc": """\
#include "ops/{snake}/{snake}_cpu.h"

#include <vector>

#include "ops/{snake}/spec.gen.h"

namespace deploydcn::{snake} {{
namespace {{

class Kernel : public CpuKernel {{
 public:
  explicit Kernel(const Attributes& attributes)
      : attributes_(attributes), factor_(attributes.named(kSpec, "factor").number) {{}}

  void compute(Span<const TensorView> inputs, CpuContext& context) const override {{
    const Axes axes = bind(kSpec, attributes_, inputs);
    const Shape shape = deploydcn::output_shape(kSpec, axes, 0);
    const int64_t count = element_count(shape);
    void* output = context.output(0, shape);
    std::vector<double> values(static_cast<std::size_t>(count));
    load_as<double>(inputs[0].data, inputs[0].dtype, 0, count, values.data());
    for (double& value : values) value *= factor_;
    store_as<double>(values.data(), count, output, inputs[0].dtype, 0);
  }}

 private:
  Attributes attributes_;
  double factor_;
}};

std::unique_ptr<CpuKernel> create(const CpuNode& node) {{
  return std::make_unique<Kernel>(node.attributes);
}}

}}  // namespace

const CpuOp kCpuOp = {{&kSpec, create}};

}}  // namespace deploydcn::{snake}
""",
    "{snake}_cuda.h": """\
// The GPU side of {snake}, as runtimes see it.
#pragma once

#include "gpu/gpu_op.h"

namespace deploydcn::{snake} {{

extern const gpu::GpuOp kGpuOp;

}}  // namespace deploydcn::{snake}
""",
    "{snake}_cuda.cu": """\
#include "ops/{snake}/{snake}_cuda.h"

#include "gpu/numeric.cuh"
#include "ops/{snake}/spec.gen.h"

namespace deploydcn::{snake} {{

// y = x * factor for `count` elements. Kernels have external linkage: the emulator finds them by name.
template <class T>
__global__ void scale(const T* x, float factor, int64_t count, T* y) {{
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) y[i] = gpu::from_float<T>(gpu::to_float(x[i]) * factor);
}}

namespace {{

template <class T>
cudaError_t launch_as(const TensorView& x, float factor, int64_t count, void* y, cudaStream_t stream) {{
  constexpr int kThreads = 256;
  const dim3 grid(static_cast<unsigned>((count + kThreads - 1) / kThreads));
  return GPU_LAUNCH(scale<T>, grid, dim3(kThreads), 0, stream, static_cast<const T*>(x.data), factor, count,
                    static_cast<T*>(y));
}}

class Kernel : public gpu::GpuKernel {{
 public:
  explicit Kernel(const Attributes& attributes) : attributes_(attributes) {{}}

  std::size_t workspace_bytes(Span<const TensorView> inputs) const override {{
    bind(kSpec, attributes_, inputs);  // checks the shapes
    return 0;
  }}
  void launch(Span<const TensorView> inputs, Span<const gpu::OutputView> outputs, void*,
              gpu::Stream stream) const override {{
    const Axes axes = bind(kSpec, attributes_, inputs);
    const int64_t count = element_count(deploydcn::output_shape(kSpec, axes, 0));
    if (count == 0) return;
    const auto factor = static_cast<float>(attributes_.named(kSpec, "factor").number);
    const cudaError_t status = inputs[0].dtype == DType::kFloat16
                                   ? launch_as<__half>(inputs[0], factor, count, outputs[0].data, stream)
                                   : launch_as<float>(inputs[0], factor, count, outputs[0].data, stream);
    if (status != cudaSuccess) throw DeviceError(cudaGetErrorString(status));
  }}

 private:
  Attributes attributes_;
}};

std::unique_ptr<gpu::GpuKernel> create(const Attributes& attributes, const gpu::GpuOptions&) {{
  return std::make_unique<Kernel>(attributes);
}}

}}  // namespace

const gpu::GpuOp kGpuOp = {{&kSpec, {{}}, {{}}, create}};

}}  // namespace deploydcn::{snake}
""",
}

# (file, mark, line to insert before the mark)
LISTS = (
    ("deploydcn/ops/__init__.py", "    # new-op: insert above", "    Op({snake}.SPEC, {snake}.reference, {snake}.CASES),\n"),
    ("deploydcn/nn/eager/__init__.py", "    # new-op: insert above", '    "{name}": lambda input, factor: input * factor,\n'),
    (
        "export/portable/__init__.py",
        "    # new-op: insert above",
        '    "{name}": lambda op, node: [op.Mul(op.to_real(node.inputs["X"]), float(node.attributes["factor"]))],\n',
    ),
    ("plugins/ort/cpu_ops.cc", "// new-op: include above", '#include "ops/{snake}/{snake}_cpu.h"\n'),
    ("plugins/ort/cpu_ops.cc", "    // new-op: insert above", "    &{snake}::kCpuOp,\n"),
    ("plugins/ort/cuda_ops.cc", "// new-gpu-op: include above", '#include "ops/{snake}/{snake}_cuda.h"\n'),
    ("plugins/ort/cuda_ops.cc", "    // new-gpu-op: insert above", "    &{snake}::kGpuOp,\n"),
    ("plugins/tensorrt/register.cc", "// new-gpu-op: include above", '#include "ops/{snake}/{snake}_cuda.h"\n'),
    ("plugins/tensorrt/register.cc", "      // new-gpu-op: insert above", '      {{{snake}::kGpuOp, "{name}", "deploydcn"}},\n'),
    ("plugins/harness/run_kernel.cc", "// new-gpu-op: include above", '#include "ops/{snake}/{snake}_cuda.h"\n'),
    ("plugins/harness/run_kernel.cc", "    // new-gpu-op: insert above", "    &{snake}::kGpuOp,\n"),
    ("tests/cpp/kernel_driver.cc", "// new-op: include above", '#include "ops/{snake}/{snake}_cpu.h"\n'),
    ("tests/cpp/kernel_driver.cc", "    // new-op: insert above", "    &{snake}::kCpuOp,\n"),
)


def snake_case(name: str) -> str:
    """DeformConv2d -> deform_conv2d, MSDeformAttn -> ms_deform_attn."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def create(root: Path, name: str) -> list[Path]:
    """Write the skeleton into a source checkout; return the files written or changed.

    Raises:
        InvalidArgument: the name is not CamelCase, or the operator exists.
    """
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]+", name):
        raise InvalidArgument(f"NAME is {name!r}; wanted CamelCase, as in make new-op NAME=MyOp")
    snake = snake_case(name)
    folders = {root / "deploydcn" / "ops" / snake: PYTHON_FILES, root / "plugins" / "ops" / snake: CPP_FILES}
    for folder in folders:
        if folder.exists():
            raise InvalidArgument(f"{folder.relative_to(root)} exists; choose another name")
    changed = []
    for folder, files in folders.items():
        folder.mkdir(parents=True)
        for file, text in files.items():
            path = folder / file.format(snake=snake)
            path.write_text(text.format(name=name, snake=snake))
            changed.append(path)
    for file, mark, line in LISTS:
        path = root / file
        text = path.read_text()
        path.write_text(text.replace(mark, line.format(name=name, snake=snake) + mark, 1))
        changed.append(path)
    init = root / "deploydcn" / "ops" / "__init__.py"
    imports = re.search(r"from deploydcn\.ops import \(\n((?:    \w+,\n)+)\)", init.read_text())
    if imports is None:
        raise InvalidArgument(f"{init.relative_to(root)} has no import list to extend")
    names = sorted([*imports.group(1).splitlines(keepends=True), f"    {snake},\n"])
    init.write_text(init.read_text().replace(imports.group(0), f"from deploydcn.ops import (\n{''.join(names)})"))
    return changed


def main(arguments: list[str]) -> int:
    """Create the operator named on the command line and generate its C++ table."""
    root = Path(__file__).resolve().parent.parent
    if len(arguments) != 1:
        print("usage: make new-op NAME=MyOp", file=sys.stderr)
        return 2
    try:
        for path in dict.fromkeys(create(root, arguments[0])):
            print(f"wrote {path.relative_to(root)}")
    except DeployDcnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # A new process: this one has imported the list of operators as it was.
    return subprocess.run([sys.executable, "-m", "deploydcn.codegen"], cwd=root, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
