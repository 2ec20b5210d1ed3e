"""Watch an ONNX file at work: the tensors that say where its deformable nodes sample become outputs, and ONNX Runtime runs it.

The file is first rewritten as `deploydcn.convert` does for ONNX Runtime, in memory, so that the nodes of other exporters are understood.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from deploydcn.errors import InvalidArgument
from deploydcn.export import conversion, graph
from deploydcn.export.finish import tensor_info
from deploydcn.export.portable.node import SpecNode
from deploydcn.onnx_schema import DOMAIN
from deploydcn.ops import op_named
from deploydcn.runners.base import TensorInfo
from deploydcn.runners.ort_runner import OrtRunner
from deploydcn.visual.geometry import Grid, Size, Trail, map_size, merged
from deploydcn.visual.layers import SAMPLING_INPUTS, Layer, make_layer, map_grid, output_trail, parent_of, unique_name
from deploydcn.visual.onnx_steps import step

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Watched:
    """The model with its taps, for inputs of these shapes. taps, sizes: what is known of tensors by the outputs that tell their values and
    their shapes."""

    inputs: Shapes
    runner: OrtRunner
    taps: Mapping[str, ir.Value]
    sizes: Mapping[str, ir.Value]


class OnnxTap:
    """An ONNX file, rewritten for ONNX Runtime.

    Raises:
        InvalidModel, ExportError: the file cannot be read, or a node of its breaks its specification.
    """

    def __init__(self, path: Path) -> None:
        self.model, *_ = conversion.rewritten(path, "ort")
        self.inputs: tuple[TensorInfo, ...] = tuple(tensor_info(value) for value in self.model.graph.inputs)
        self.nodes = [node for node in self.model.graph if _is_deformable(node)]
        inside = sum(map(_is_deformable, self.model.graph.all_nodes())) - len(self.nodes)
        self.notes = [f"{inside} deformable nodes are inside If or Loop bodies, where they cannot be watched"] if inside else []
        self._watched: _Watched | None = None

    def layers(self, inputs: Mapping[str, np.ndarray], image: str) -> list[Layer]:
        """Every deformable layer, in order, on these inputs. image: the name of the input that holds it.

        May be called again with inputs of the same shapes; the session is kept.

        Raises:
            InvalidArgument: inputs of other shapes than the first.
            RuntimeFailure: ONNX Runtime refuses or fails.
        """
        if not self.nodes:
            return []
        given = {name: tuple(array.shape) for name, array in inputs.items()}
        watched = self._watched = self._watched or self._watch(inputs, given)
        if given != watched.inputs:
            raise InvalidArgument(f"inputs have the shapes {given}; wanted those of the first: {watched.inputs}")
        outputs = watched.runner.run(inputs)
        arrays = {value.name or "": outputs[name] for name, value in watched.taps.items()}
        shapes = self._known_shapes() | {value.name or "": tuple(map(int, outputs[name])) for name, value in watched.sizes.items()}
        return self._walk(arrays, shapes, image)

    def _watch(self, inputs: Mapping[str, np.ndarray], given: Shapes) -> _Watched:
        """Make outputs of what must be seen, and open the model."""
        self._fix_shapes(inputs)
        wanted = [value for node in self.nodes for value in self._read(node).values()]
        taps = {f"deploydcn_tap_{index}": value for index, value in enumerate(dict.fromkeys(wanted))}
        sizes = {f"deploydcn_shape_{index}": value for index, value in enumerate(self._of_unknown_shape())}
        for name, value in taps.items():
            self._add_output("Identity", name, value, value.dtype or ir.DataType.FLOAT)
        for name, value in sizes.items():
            self._add_output("Shape", name, value, ir.DataType.INT64)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "watched.onnx"
            graph.save(self.model, path)
            return _Watched(given, OrtRunner(path), taps, sizes)

    def _fix_shapes(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Infer shapes anew for these inputs."""
        for node in self.model.graph.all_nodes():
            for output in node.outputs:
                output.shape = None
        for value in self.model.graph.inputs:
            value.shape = ir.Shape(inputs[value.name or ""].shape)
        conversion.infer(self.model)

    def _read(self, node: ir.Node) -> dict[str, ir.Value]:
        """The inputs that say where a node samples, by the spec's names."""
        read = SpecNode(op_named(node.op_type).spec, node)
        return {name: read.inputs[name] for name in SAMPLING_INPUTS[node.op_type] if name in read.inputs}

    def _of_unknown_shape(self) -> list[ir.Value]:
        """Tensors whose shapes do not follow from the inputs', or only from what is computed."""
        outputs = [value for node in self.model.graph for value in node.outputs if value.uses()]
        return [value for value in outputs if isinstance(value.type, ir.TensorType) and _fixed(value) is None]

    def _known_shapes(self) -> Shapes:
        initializers = [*self.model.graph.inputs, *self.model.graph.initializers.values()]
        values = [*initializers, *(value for node in self.model.graph for value in node.outputs)]
        return {value.name or "": shape for value in values if (shape := _fixed(value)) is not None}

    def _add_output(self, op_type: str, name: str, value: ir.Value, dtype: ir.DataType) -> None:
        node = ir.node(op_type, [value], name=name)
        node.outputs[0].name, node.outputs[0].type = name, ir.TensorType(dtype)
        self.model.graph.append(node)
        self.model.graph.outputs.append(node.outputs[0])

    def _walk(self, arrays: Mapping[str, np.ndarray], shapes: Shapes, image: str) -> list[Layer]:
        """Follow the image through the graph, as torch_tap does through a running model."""
        image_size = map_size(shapes[image], (-2, -1))
        trails = {image: Trail(Grid(), image_size, (-2, -1))}
        layers: list[Layer] = []
        names: set[str] = set()
        for node in self.model.graph:
            if node in self.nodes:
                layers.append(self._layer(node, arrays, shapes, trails, image_size, layers, names))
                trails[node.outputs[0].name or ""] = output_trail(layers[-1], len(layers) - 1)
                continue
            known = [trails[name] for value in node.inputs if value is not None and (name := value.name or "") in trails]
            for output in node.outputs if known else ():
                if (name := output.name or "") in shapes:
                    data = trails.get(node.inputs[0].name or "") if node.inputs[0] is not None else None
                    moved = step(node, data, shapes) if data is not None and data.is_map else None
                    trails[name] = moved or merged(known, shapes[name])
        return layers

    def _layer(
        self,
        node: ir.Node,
        arrays: Mapping[str, np.ndarray],
        shapes: Shapes,
        trails: Mapping[str, Trail],
        image_size: Size,
        layers: list[Layer],
        names: set[str],
    ) -> Layer:
        read = SpecNode(op_named(node.op_type).spec, node)
        caught = {name: arrays[value.name or ""] for name, value in self._read(node).items()}
        trail = trails.get(node.inputs[0].name or "", Trail())  # type: ignore[union-attr]
        return make_layer(
            unique_name(graph.node_name(node), names),
            node.op_type,
            caught,
            {name: shapes[value.name or ""] for name, value in read.inputs.items()},
            read.attributes,
            grid=map_grid(node.op_type, trail),
            image_size=image_size,
            parent=parent_of(layers, trail),
        )


def _is_deformable(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type in SAMPLING_INPUTS


def _fixed(value: ir.Value) -> tuple[int, ...] | None:
    shape = None if value.shape is None else [size for size in value.shape if isinstance(size, int)]
    return None if shape is None or value.shape is None or len(shape) != len(value.shape) else tuple(shape)
