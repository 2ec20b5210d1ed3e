"""Write each operator's C++ specification table, `plugins/ops/<op>/spec.gen.h`, from its Python spec.

    python -m deploydcn.codegen            # write all
    python -m deploydcn.codegen --check    # exit 1 when a committed file differs from what would be written

The tables are data for `plugins/core/op_spec.h`; no logic is generated.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploydcn.errors import InternalError
from deploydcn.ops import OPS
from deploydcn.spec import Attr, Expression, OpSpec, Tensor

DTYPES = {
    **{"float32": "kFloat32", "float64": "kFloat64", "float16": "kFloat16", "bfloat16": "kBFloat16"},
    **{"int64": "kInt64", "uint8": "kUInt8", "int8": "kInt8", "int32": "kInt32"},
}
KINDS = {"int": "kInt", "ints": "kInts", "float": "kFloat", "string": "kString"}
MAX_AXES = 32  # kMaxAxes of op_spec.h


def axis_names(spec: OpSpec) -> list[str]:
    """Every axis name of the spec, in order of appearance: attributes, inputs, outputs, computed sizes."""
    names = [axis for attr in spec.attributes for axis in attr.axes]
    for tensor in (*spec.inputs, *spec.outputs):
        names += [name for axis in tensor.expressions for name in axis.names]
    names += [name for text in spec.sizes.values() for name in Expression(text).names] + list(spec.sizes)
    unique = list(dict.fromkeys(names))
    if len(unique) > MAX_AXES:
        raise InternalError(f"{spec.name} has {len(unique)} axes; op_spec.h holds {MAX_AXES}")
    return unique


class Writer:
    """Collects named constant arrays, then the struct that refers to them."""

    def __init__(self, spec: OpSpec) -> None:
        self.spec = spec
        self.axes = axis_names(spec)
        self.arrays: list[str] = []

    def array(self, element: str, name: str, items: list[str]) -> str:
        """Declare a constant array; return the text of a Span over it."""
        if not items:
            return "{}"
        one_line = f"inline constexpr {element} {name}[] = {{{', '.join(items)}}};"
        if len(one_line) > 116:
            one_line = f"inline constexpr {element} {name}[] = {{\n" + "".join(f"    {item},\n" for item in items) + "};"
        self.arrays.append(one_line)
        return name

    def expression(self, text: str, name: str) -> str:
        tokens: list[str] = []

        def leaf(item: int | str) -> None:
            tokens.append(f"{{'i', {item}}}" if isinstance(item, int) else f"{{'a', {item}}}")

        def combine(operator: str, _left: None, _right: None) -> None:
            tokens.append(f"{{'{operator[0]}', 0}}")

        Expression(text).fold(leaf, combine)
        return f'{{"{text}", {self.array("Token", name, tokens)}}}'

    def attribute(self, attr: Attr) -> str:
        name = f"k{_camel(attr.name)}"
        default = attr.default
        ints = [] if default is None or attr.kind in ("float", "string") else list(default if isinstance(default, tuple) else (default,))
        axes = self.array("int", f"{name}Axes", list(attr.axes))
        defaults = self.array("int64_t", f"{name}Default", [str(item) for item in ints])
        choices = self.array("const char*", f"{name}Choices", [f'"{choice}"' for choice in attr.choices])
        number = repr(float(default)) if attr.kind == "float" and isinstance(default, int | float) else "0"
        text = str(default) if attr.kind == "string" else ""
        has_default = _bool(default is not None)
        minimum = "INT64_MIN" if attr.minimum is None else str(attr.minimum)
        maximum = "INT64_MAX" if attr.maximum is None else str(attr.maximum)
        return (
            f'{{"{attr.name}", AttrKind::{KINDS[attr.kind]}, {axes}, {has_default}, {defaults}, {number}, "{text}", '
            f"{minimum}, {maximum}, {choices}}}"
        )

    def tensor(self, tensor: Tensor) -> str:
        prefix = f"k{_camel(tensor.name)}"
        axes = [self.expression(axis, f"{prefix}Dim{index}") for index, axis in enumerate(tensor.axes)]
        type_param = list(self.spec.type_rows[0]).index(tensor.type_param)
        return f'{{"{tensor.name}", {self.array("Expression", f"{prefix}Dims", axes)}, {type_param}, {_bool(tensor.optional)}}}'

    def header(self) -> str:
        spec = self.spec
        attributes = self.array("AttrSpec", "kAttributes", [self.attribute(attr) for attr in spec.attributes])
        inputs = self.array("TensorSpec", "kInputs", [self.tensor(tensor) for tensor in spec.inputs])
        outputs = self.array("TensorSpec", "kOutputs", [self.tensor(tensor) for tensor in spec.outputs])
        params = list(spec.type_rows[0])
        dtypes = [f"DType::{DTYPES[row[param]]}" for row in spec.type_rows for param in params]
        rows = self.array("DType", "kTypeRows", dtypes)
        size_items = [f"{{{axis}, {self.expression(text, f'k{axis}Size')}}}" for axis, text in spec.sizes.items()]
        sizes = self.array("SizeSpec", "kSizes", size_items)
        divisible = self.array("DivisibleSpec", "kDivisible", [f"{{{a}, {b}}}" for a, b in spec.divisible])
        at_least = self.array("AtLeastSpec", "kAtLeast", [f"{{{axis}, {least}}}" for axis, least in spec.at_least.items()])
        names = self.array("const char*", "kAxisNames", [f'"{name}"' for name in self.axes])
        return "\n".join(
            [
                f"// Generated from deploydcn/ops/{spec.snake_name}/spec.py by `python -m deploydcn.codegen`; do not edit.",
                "#pragma once",
                "",
                '#include "core/op_spec.h"',
                "",
                f"namespace deploydcn::{spec.snake_name} {{",
                "",
                f"enum Axis : int {{ {', '.join(self.axes)} }};",
                "",
                *self.arrays,
                "",
                f'inline constexpr OpSpec kSpec = {{"{spec.name}", {spec.since_version}, {names}, {attributes}, {inputs}, '
                f"{outputs}, {len(params)}, {rows}, {sizes}, {divisible}, {at_least}}};",
                "",
                f"}}  // namespace deploydcn::{spec.snake_name}",
                "",
            ]
        )


def header_path(root: Path, spec: OpSpec) -> Path:
    """Where an operator's table is kept in a source checkout."""
    return root / "plugins" / "ops" / spec.snake_name / "spec.gen.h"


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def main(arguments: list[str]) -> int:
    """Write, or with --check compare, the tables of all operators. Returns the exit code."""
    root = Path(__file__).resolve().parent.parent
    stale = []
    for op in OPS:
        path, text = header_path(root, op.spec), Writer(op.spec).header()
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(path)
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in stale:
        print(f"{'stale' if '--check' in arguments else 'wrote'} {path.relative_to(root)}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
