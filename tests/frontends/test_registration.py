"""Frontends that users write, and what is caught when one is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import Function

import deploydcn
from deploydcn.errors import ExportError, InvalidArgument
from deploydcn.export.frontends import registry
from deploydcn.nn import deform_conv2d, with_forward
from tests.frontends import foreign
from tests.frontends.helpers import DYNAMIC, exported, image, largest, replaced, with_large_offsets


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Registrations of one test only."""
    own: dict[str, object] = {}
    monkeypatch.setattr(registry, "_REGISTERED", own)
    return own


class MyDeformConv(nn.Module):
    """A layer of a user: its offsets come as a branch on their values, which cannot be traced."""

    def __init__(self, channels: int = 4, outputs: int = 6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, channels, 3, 3) * 0.2)
        self.offset_conv = nn.Conv2d(channels, 18, 3, padding=1)
        nn.init.zeros_(self.offset_conv.weight)
        nn.init.zeros_(self.offset_conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        offset = self.offset_conv(x)
        if offset.abs().max() > 100:
            offset = offset.clamp(-100, 100)
        import torchvision

        return torchvision.ops.deform_conv2d(x, offset, self.weight, padding=1)


def as_ours(module: MyDeformConv) -> nn.Module:
    return with_forward(module, lambda self, image: deform_conv2d(image, self.weight, self.offset_conv(image), padding=1))


NAME = f"{__name__}.MyDeformConv"


# -------------------------------------------------------------------------------------------------------- what works
class Subclass(MyDeformConv):
    """Inherits its forward: the same layer."""


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.parametrize("place", ["inside", "the model itself"])
def test_a_registered_layer_is_exported(place: str, tmp_path: Path) -> None:
    deploydcn.register_frontend(NAME)(as_ours)
    model = with_large_offsets(nn.Sequential(nn.Conv2d(4, 4, 1), Subclass()) if place == "inside" else MyDeformConv())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        wanted = model(image())
    outputs, report = exported(model, (image(),), tmp_path, dynamic_shapes=(DYNAMIC,))
    assert largest(outputs[0], wanted) < 1e-4
    kind = Subclass if place == "inside" else MyDeformConv
    assert report.notes[0].startswith(f"1 {__name__}.{kind.__name__} replaced (register_frontend); equal within")
    assert type(model[1] if place == "inside" else model) is kind
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_without_registration_the_line_at_fault_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot trace MyDeformConv at test_registration.py line \d+: if offset.abs"):
        deploydcn.export_onnx(MyDeformConv(), image(), tmp_path / "m.onnx")


def test_a_name_that_nothing_has_is_mentioned(tmp_path: Path) -> None:
    deploydcn.register_frontend("my_package.MyDeformConv")(as_ours)
    with pytest.raises(ExportError, match=r"nothing in the model has the registered name my_package.MyDeformConv$"):
        deploydcn.export_onnx(MyDeformConv(), image(), tmp_path / "m.onnx")
    _, notes = replaced(foreign.DeformConv2d(4, 6), image())
    assert notes[-1] == "the frontend registered for my_package.MyDeformConv met nothing of that name in this model"


@pytest.mark.slow
@pytest.mark.parametrize("runs_here", [True, False], ids=["compiled", "missing"])
def test_everything_is_as_before_afterwards(runs_here: bool, tmp_path: Path) -> None:
    forward = vars(foreign._DCNv2)["forward"]
    model = nn.Sequential(foreign.DCN(4, 6, 3, 1, 1), foreign.DeformConv2d(6, 4))
    layers = list(model)
    hooks = [len(layer._forward_pre_hooks) for layer in layers]
    with foreign.compiled() if runs_here else contextlib.nullcontext():
        deploydcn.export_onnx(model, image(), tmp_path / "m.onnx", check=False)
        with pytest.raises(ExportError):
            deploydcn.export_onnx(nn.Sequential(model, MyDeformConv(4)), image(), tmp_path / "m.onnx")
    assert vars(foreign._DCNv2)["forward"] is forward
    assert all(now is before for now, before in zip(model, layers, strict=True))
    assert [len(layer._forward_pre_hooks) for layer in layers] == hooks
    assert model.training


def test_hooks_and_shared_layers() -> None:
    deploydcn.register_frontend("*.MyDeformConv")(as_ours)
    layer = MyDeformConv(4, 6)
    layer.register_forward_hook(lambda module, args, output: output * 2)
    layer.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model = nn.ModuleDict({"first": layer, "again": layer})
    model.forward = lambda x: model["first"](x) + model["again"](x.flip(3))
    with_large_offsets(model)
    output, notes = replaced(model, image())
    with torch.no_grad():
        assert largest(output, model(image())) < 1e-5
    assert len(notes) == 1


def test_none_leaves_a_layer_as_it_is(registered: dict[str, object]) -> None:
    deploydcn.register_frontend("*.DeformConv2d")(lambda module: None)
    with pytest.raises(AssertionError, match="nothing was recognised"):
        replaced(foreign.DeformConv2d(4, 6), image())


def test_a_replacement_may_contain_its_original() -> None:
    class Plus(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) + 0

    deploydcn.register_frontend(NAME)(Plus)
    model = with_large_offsets(nn.Sequential(MyDeformConv()))
    model[0].register_forward_hook(lambda module, args, output: output + 1)
    output, _ = replaced(model, image())
    with torch.no_grad():
        assert largest(output, model(image())) == 0


def test_parameters_of_a_parametrized_layer_are_followed() -> None:
    model = with_large_offsets(foreign.DeformConv2d(4, 6))
    nn.utils.parametrizations.weight_norm(model.conv)
    output, _ = replaced(model, image())
    with torch.no_grad():
        assert largest(output, model(image())) < 1e-5


class MyFunction(Function):
    @staticmethod
    def forward(ctx, features, shifts, kernel, reach=1):
        return foreign.extension(features, shifts, kernel, None, 1, reach, 1, None)


class NewStyleFunction(Function):
    """With setup_context, forward has no ctx."""

    @staticmethod
    def forward(features, shifts, kernel, reach=1):
        return foreign.extension(features, shifts, kernel, None, 1, reach, 1, None)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass


class UsesFunction(nn.Module):
    def __init__(self, function: type[Function]) -> None:
        super().__init__()
        self.function = function
        self.offset_conv = nn.Conv2d(4, 18, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3) * 0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function.apply(x, self.offset_conv(x), self.weight)


@pytest.mark.parametrize("function", [MyFunction, NewStyleFunction], ids=lambda kind: kind.__name__)
def test_a_registered_function(function: type[Function]) -> None:
    deploydcn.register_frontend(f"{__name__}.{function.__name__}")(
        # Its own default of reach is not used: the Function's is.
        lambda features, shifts, kernel, reach=7: deform_conv2d(features, kernel, shifts, padding=reach)
    )
    model = with_large_offsets(UsesFunction(function))
    with foreign.compiled():
        output, notes = replaced(model, image())
        with torch.no_grad():
            assert largest(output, model(image())) < 1e-5
    assert notes[0].startswith(f"{__name__}.{function.__name__} replaced (register_frontend); equal within")


def shifted_conv(features: torch.Tensor, shifts: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    return foreign.extension(features, shifts, kernel, None, 1, 1, 1, None)


def test_a_registered_python_function() -> None:
    class Uses(UsesFunction):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return shifted_conv(x, self.offset_conv(x), self.weight) + self.kept(x, self.offset_conv(x), self.weight)

    model = with_large_offsets(Uses(MyFunction))
    model.kept = shifted_conv  # as D-FINE does in transformers
    deploydcn.register_frontend(f"{__name__}.shifted_conv")(
        lambda features, shifts, kernel: deform_conv2d(features, kernel, shifts, padding=1)
    )
    output, notes = replaced(model, image(), runs_here=False)
    with foreign.compiled(), torch.no_grad():
        assert largest(output, model(image())) < 1e-5
    assert "not compared" in notes[0]


# ------------------------------------------------------------------------------------------------------ what is caught
def test_a_wrong_replacement_is_caught_although_its_offsets_are_still_zero(tmp_path: Path) -> None:
    def transposed(module: MyDeformConv) -> nn.Module:
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            offset = self.offset_conv(x).unflatten(1, (9, 2)).flip(2).flatten(1, 2)
            return deform_conv2d(x, self.weight, offset, padding=1)

        return with_forward(module, forward)

    deploydcn.register_frontend(NAME)(transposed)
    model = nn.Sequential(nn.Conv2d(4, 4, 1), MyDeformConv())
    with pytest.raises(ExportError) as raised:
        deploydcn.export_onnx(model, image(), tmp_path / "m.onnx")
    message = str(raised.value)
    assert message.startswith(f"1 ({NAME}) does not compute what the frontend register_frontend has for it: largest difference ")
    assert not list(tmp_path.iterdir())


def test_a_wrong_border_is_caught() -> None:
    """Offsets reach beyond the border: a layer that differs only there is found."""

    class Clamped(MyDeformConv):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            edge = nn.functional.pad(x, (8, 8, 8, 8), mode="replicate")
            return foreign.torchvision.ops.deform_conv2d(edge, nn.functional.pad(self.offset_conv(x), (8,) * 4), self.weight, padding=1)[
                :, :, 8:-8, 8:-8
            ]

    deploydcn.register_frontend("*.Clamped")(as_ours)
    with pytest.raises(ExportError, match="does not compute what the frontend register_frontend has"):
        replaced(Clamped(), image())


def test_a_wrong_function_is_caught() -> None:
    deploydcn.register_frontend(f"{__name__}.MyFunction")(
        lambda features, shifts, kernel, reach: deform_conv2d(features, kernel, -shifts, padding=reach)
    )
    with pytest.raises(ExportError, match="MyFunction does not compute what the frontend register_frontend has for it"), foreign.compiled():
        replaced(with_large_offsets(UsesFunction(MyFunction)), image())


def test_a_layer_that_only_looks_known_is_refused_by_name(tmp_path: Path) -> None:
    class DeformConv2d(foreign.DeformConv2d):
        """Offsets in units of its stride: no dialect we know."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * 0.5) + self.p_conv(x).mean()

    with pytest.raises(ExportError, match=r"1 \(.*DeformConv2d\) does not compute what the frontend pure PyTorch has"):
        deploydcn.export_onnx(nn.Sequential(nn.ReLU(), DeformConv2d(4, 6)), image(), tmp_path / "m.onnx")


def test_a_function_with_other_parameters_is_another_function() -> None:
    class _DCNv2(Function):
        @staticmethod
        def forward(ctx, input, weight):
            return input * weight

    class Uses(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return _DCNv2.apply(x, x)

    with pytest.raises(AssertionError, match="nothing was recognised"):
        replaced(Uses(), image())


def wants_other_parameters(features, offsets):
    return features


BAD = {
    "returns_a_tensor": (NAME, lambda module: module.weight, "returned a Parameter for 0"),
    "returns_the_module": (NAME, lambda module: module, "returned the module itself for 0"),
    "returns_nothing_to_choose": (NAME, lambda module: [], "returned a list for 0"),
    "raises": (NAME, lambda module: module.no_such_thing, "failed on 0 .*AttributeError.*no_such_thing"),
    "refuses": (NAME, lambda module: deploydcn_refuses(), "0 .* cannot be exported: it has a moustache"),
    "other_parameters": (
        f"{__name__}.MyFunction",
        wants_other_parameters,
        r"takes \(features, offsets\); wanted \(features, shifts, kernel, reach\), as its forward without ctx",
    ),
}


def deploydcn_refuses() -> None:
    raise ExportError("it has a moustache")


@pytest.mark.parametrize(("name", "function", "message"), BAD.values(), ids=BAD)
def test_bad_frontends_are_named(name: str, function, message: str) -> None:
    deploydcn.register_frontend(name)(function)
    with pytest.raises(ExportError, match=message):
        replaced(nn.Sequential(MyDeformConv()), image())


@pytest.mark.parametrize("name", ["MyDeformConv", "", "my-package.Layer", "*.", "*", ".Layer", 5, MyDeformConv])
def test_bad_names(name: object) -> None:
    with pytest.raises(InvalidArgument, match="wanted a qualified class name"):
        deploydcn.register_frontend(name)


def test_a_name_is_registered_once() -> None:
    deploydcn.register_frontend(NAME)(as_ours)
    with pytest.raises(InvalidArgument, match=rf"a frontend for {NAME} is registered already: {__name__}.as_ours"):
        deploydcn.register_frontend(NAME)(as_ours)
    with pytest.raises(InvalidArgument, match="decorates 3; wanted a function"):
        deploydcn.register_frontend("a.B")(3)
