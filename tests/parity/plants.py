"""Bugs that are planted into exported models: what goes wrong when models are deployed, one in one layer each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

Edit = Callable[[onnx.ModelProto, onnx.NodeProto], None]


@dataclass(frozen=True)
class Plant:
    """What is wrong, the module it is planted in, and how. operator: of the node at fault there."""

    label: str
    path: str
    operator: str
    edit: Edit


def planted(model: onnx.ModelProto, plant: Plant) -> tuple[onnx.ModelProto, str]:
    """A copy with the bug, and the name of the node that has it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    node = node_of(copy, plant.path, plant.operator)
    plant.edit(copy, node)
    return copy, node.name


def node_of(model: onnx.ModelProto, path: str, operator: str) -> onnx.NodeProto:
    """The last node of an operator that the exporter's record puts into a module, but into none inside it."""
    found = [node for node in model.graph.node if node.op_type == operator and path in scopes(node)[-2:-1]]
    assert found, (path, operator)
    return found[-1]


def scopes(node: onnx.NodeProto) -> list[str]:
    text = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "[]")
    return [name.strip(" '\"") for name in text.strip("[]").split(",")]


def attribute(name: str, value: object) -> Edit:
    def edit(_model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        kept = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def weight(index: int, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Change a constant input."""

    def edit(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[index])
        other = numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(tensor))), f"{tensor.name}.planted")
        model.graph.initializer.append(other)
        node.input[index] = other.name

    return edit


def between(index: int, *steps: tuple[str, dict[str, object]]) -> Edit:
    """Put unary operators before an input."""

    def edit(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        at = next(position for position, other in enumerate(model.graph.node) if other is node or other.name == node.name)
        value = node.input[index]
        for number, (operator, attributes) in enumerate(steps):
            result = f"{node.name}.planted_{index}_{number}"
            model.graph.node.insert(at + number, helper.make_node(operator, [value], [result], name=result, **attributes))
            value = result
        model.graph.node[at + len(steps)].input[index] = value

    return edit


def channels(index: int, order: Callable[[int], np.ndarray], size: int) -> Edit:
    """Put the channels of an input into another order."""

    def edit(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        name = f"{node.name}.planted_order"
        model.graph.initializer.append(numpy_helper.from_array(order(size), name))
        between(index, ("Gather", {"axis": 1}))(model, node)
        next(other for other in model.graph.node if other.name == f"{node.name}.planted_{index}_0").input.append(name)

    return edit


def drop(index: int) -> Edit:
    def edit(_model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        node.input[index] = ""

    return edit


def operator(op_type: str, **attributes: object) -> Edit:
    """Another operator of the same inputs."""

    def edit(_model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        node.op_type = op_type
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())

    return edit


def swap_pairs(size: int) -> np.ndarray:
    """(y, x) of every tap -> (x, y)."""
    return np.arange(size).reshape(-1, 2)[:, ::-1].reshape(-1)


def split_pairs(size: int) -> np.ndarray:
    """y0 x0 y1 x1 ... -> y0 y1 ... x0 x1 ..."""
    return np.arange(size).reshape(-1, 2).T.reshape(-1)


def half_coordinates(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Positions in the image rounded to float16, as when a kernel computes them so: 3x3, stride 1, padding 1."""
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.value_info}
    _, count, height, width = sizes[node.input[2]]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    taps = np.stack([np.stack([rows + tap // 3 - 1, columns + tap % 3 - 1]) for tap in range(count // 2)])
    name = f"{node.name}.planted_positions"
    model.graph.initializer.append(numpy_helper.from_array(taps.reshape(1, count, height, width), name))
    steps = (("Add", {}), ("Cast", {"to": onnx.TensorProto.FLOAT16}), ("Cast", {"to": onnx.TensorProto.FLOAT}), ("Sub", {}))
    between(2, *steps)(model, node)
    for number in (0, 3):
        next(other for other in model.graph.node if other.name == f"{node.name}.planted_2_{number}").input.append(name)
