"""Modules that are replaced as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from deploydcn.errors import ExportError, UserError
from deploydcn.export.frontends import Frontend, matching
from deploydcn.export.frontends.comparison import Call, CannotRun, Difference, difference, in_double, randomised_call, randomised_copy


@dataclass
class Swap:
    """A module that frontends know. frontend: the one that had the say. call: its first one on the example."""

    path: str
    module: nn.Module
    converters: list[tuple[Frontend, Callable[[nn.Module], Any]]]
    frontend: str = ""
    call: Call | None = None
    chosen: nn.Module | None = None

    @property
    def kind(self) -> str:
        """The qualified name of the class."""
        return matching.qualified_name(type(self.module))

    @property
    def label(self) -> str:
        """'backbone.layer2 (my_package.MyDeformConv)'."""
        return f"{self.path or 'the model'} ({self.kind})"

    def candidates(self, module: nn.Module) -> list[nn.Module]:
        """What the first frontend that knows the module, or a copy of it, offers.

        Raises:
            ExportError: convert refuses, fails, or returns something else.
        """
        for frontend, convert in self.converters:
            self.frontend = frontend.name
            found = self._converted(convert, module)
            if found or frontend.final:
                return found
        return []

    def choose(self, candidates: Sequence[nn.Module]) -> float:
        """The first candidate that agrees everywhere; returns how well.

        Raises:
            ExportError: none does.
            CannotRun: the module does not run on this machine.
        """
        failures = []
        for index, candidate in enumerate(candidates):
            differences = list(self._differences(candidate, index))
            if all(item.acceptable for item in differences):
                self.chosen = candidate
                return max(item.worst for item in differences)
            failures.append(max(differences, key=lambda item: item.worst))
        closest = min(failures, key=lambda item: item.worst)
        raise disagreement(self.label, self.frontend, closest, ": one that returns None leaves it as it is")

    def _converted(self, convert: Callable[[nn.Module], Any], module: nn.Module) -> list[nn.Module]:
        try:
            result = convert(module)
        except UserError as error:
            raise ExportError(f"{self.label} cannot be exported: {error}") from error
        except Exception as error:
            raise ExportError(
                f"the frontend {self.frontend} failed on {self.label}: {type(error).__name__}: {error}; correct it"
            ) from error
        if result is None:
            return []
        found = list(result) if isinstance(result, list | tuple) else [result]
        if not found or not all(isinstance(item, nn.Module) and item is not module for item in found):
            got = "the module itself" if result is module else f"a {type(result).__name__}"
            wanted = "another torch.nn.Module, or None to leave it as it is"
            raise ExportError(f"the frontend {self.frontend} returned {got} for {self.label}; wanted {wanted}")
        for item in found:
            item.eval()
            if not any(inside is module for inside in item.modules()):
                vars(item).update(_hooks(module))  # they are part of what a module computes
        return found

    def _differences(self, candidate: nn.Module, index: int) -> Iterator[Difference]:
        """On the inputs of the example; then the candidate of that index, on random inputs and parameters."""
        assert self.call is not None
        yield difference(self.module, candidate, self.call)
        with contextlib.suppress(CannotRun):
            module, call = in_double(randomised_copy(self.module), randomised_call(self.call))
            yield difference(module, self.candidates(module)[index], call)


def find_modules(known: Sequence[Frontend], root: nn.Module) -> Iterator[Swap]:
    """Modules of classes that a frontend knows."""
    entries = [(frontend, *entry) for frontend in known for entry in frontend.modules.items()]
    for path, module in root.named_modules():
        names = [matching.qualified_name(kind) for kind in matching.classes_of_forward(module)]
        converters = [
            (frontend, convert) for frontend, pattern, convert in entries if any(matching.matches(pattern, name) for name in names)
        ]
        if converters:
            yield Swap(path, module, converters)


def _hooks(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.startswith(("_forward_hooks", "_forward_pre_hooks"))}


def disagreement(label: str, frontend: str, item: Difference, advice: str = "") -> ExportError:
    """For a replacement that computes something else."""
    return ExportError(
        f"{label} does not compute what the frontend {frontend} has for it: {item.what} ({item.worst:.3g} of its scale, allowed "
        f"{item.tolerance:.2g}); register a frontend of your own for it{advice}"
    )
