"""Write OPERATORS.md, the reference of all operators, from their specs.

python -m deploydcn.docs
"""

from __future__ import annotations

from pathlib import Path

from deploydcn.ops import OPS
from deploydcn.spec import Attr, OpSpec, Tensor


def operators_page() -> str:
    """The page as Markdown."""
    intro = (
        "# Operators of ONNX domain `deploydcn`, version 1\n\n"
        "Generated from the specifications in `deploydcn/ops` by `python -m deploydcn.docs`. "
        "h comes before w everywhere; sizes are integers, `//` rounds down.\n"
    )
    return intro + "".join(_operator(op.spec) for op in OPS)


def _operator(spec: OpSpec) -> str:
    lines = [f"\n## {spec.name}\n", f"{spec.doc}\n"]
    if spec.standard_op:
        lines.append(f"Standard counterpart: ONNX `{spec.standard_op}`.\n")
    lines += ["| tensor | shape | type | PyTorch name | |", "|---|---|---|---|---|"]
    lines += [_tensor(tensor, "input") for tensor in spec.inputs] + [_tensor(tensor, "output") for tensor in spec.outputs]
    lines += ["", "| attribute | default | |", "|---|---|---|", *map(_attribute, spec.attributes), ""]
    lines += [f"`{axis}` = `{text}`  " for axis, text in spec.sizes.items()]
    rules = [f"`{axis}` is a multiple of `{divisor}`" for axis, divisor in spec.divisible]
    lines += ["", "; ".join(rules) + "." if rules else "", ""]
    rows = ["/".join(dict.fromkeys(row.values())) for row in spec.type_rows]
    lines.append(f"Element types ({'/'.join(spec.type_rows[0])}): {', '.join(rows)}.\n")
    return "\n".join(lines)


def _tensor(tensor: Tensor, role: str) -> str:
    optional = ", optional" if tensor.optional else ""
    return (
        f"| `{tensor.name}` ({role}{optional}) | ({', '.join(tensor.axes)}) | {tensor.type_param} | `{tensor.python_name}` | {tensor.doc} |"
    )


def _attribute(attr: Attr) -> str:
    default = "" if attr.default is None else list(attr.default) if isinstance(attr.default, tuple) else repr(attr.default)
    axes = f" ({', '.join(attr.axes)})" if attr.axes else ""
    return f"| `{attr.name}`{axes} | {default} | {attr.doc} |"


if __name__ == "__main__":
    (Path(__file__).resolve().parent.parent / "OPERATORS.md").write_text(operators_page())
