"""Kernels behind torch.autograd.Function, and Python functions: found by name and parameters, replaced wherever they are named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from deploydcn.errors import ExportError
from deploydcn.export.frontends import Frontend, matching
from deploydcn.export.frontends.comparison import Call, CannotRun, Difference, difference, randomised_call


@dataclass
class Routine:
    """What is called, what replaces it, and the places that name it.

    original, replacement: take the same arguments, those of a call. takes_context: the original's first parameter is ctx.
    places: (holder, attribute, the value there). call: the first one on the example.
    """

    label: str
    frontend: str
    original: Callable[..., Any]
    replacement: Callable[..., Any]
    takes_context: bool = False
    places: list[tuple[Any, str, Any]] = field(default_factory=list)
    call: Call | None = None

    def differences(self) -> Iterator[Difference]:
        """On the arguments of the example, and on random ones.

        Raises:
            CannotRun: the original does not run on this machine.
        """
        assert self.call is not None
        with self._changed(lambda function: function):  # whatever stands in its place now
            yield difference(self.original, self.replacement, self.call)
            with contextlib.suppress(CannotRun):
                yield difference(self.original, self.replacement, randomised_call(self.call))

    def recording(self) -> contextlib.AbstractContextManager[None]:
        """Note the arguments of the first call."""

        def make(function: Callable[..., Any]) -> Callable[..., Any]:
            def recorder(*args: Any, **kwargs: Any) -> Any:
                self._note(args, kwargs)
                return function(*args, **kwargs)

            return recorder

        return self._changed(make)

    def replaced(self) -> contextlib.AbstractContextManager[None]:
        """The replacement in every place; notes the arguments of the first call too."""

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            self._note(args, kwargs)
            return self.replacement(*self._arguments(args), **kwargs)

        return self._changed(lambda _: stand_in)

    def _arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args[1:] if self.takes_context else args

    def _note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.call is None:
            self.call = Call.of(self._arguments(args), kwargs)

    @contextlib.contextmanager
    def _changed(self, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
        """Every place holds make(its function)."""
        before = [vars(holder)[name] for holder, name, _ in self.places]
        for holder, name, value in self.places:
            static = isinstance(value, staticmethod)
            function = make(value.__func__ if static else value)
            setattr(holder, name, staticmethod(function) if static else function)
        try:
            yield
        finally:
            for (holder, name, _), value in zip(self.places, before, strict=True):
                setattr(holder, name, value)


def find_kernels(known: Sequence[Frontend]) -> Iterator[Routine]:
    """Loaded Function subclasses that a frontend knows.

    Raises:
        ExportError: a function registered for one takes other parameters than its forward.
    """
    for kind in matching.function_classes():
        label = matching.qualified_name(kind)
        raw = vars(kind)["forward"]
        context = matching.takes_context(kind)
        names = matching.parameter_names(raw.__func__, skip_first=context)
        candidates = [(frontend, ours) for frontend in known for pattern, ours in frontend.kernels if matching.matches(pattern, label)]
        for frontend, ours in candidates:
            if matching.same_parameters(names, ours):
                replacement = matching.adapter(raw.__func__, ours, skip_first=context)
                yield Routine(label, frontend.name, kind.apply, replacement, context, [(kind, "forward", raw)])
                break
            if frontend.final:
                wanted, got = ", ".join(names), ", ".join(matching.parameter_names(ours))
                raise ExportError(f"the frontend registered for {label} takes ({got}); wanted ({wanted}), as its forward without ctx")


def find_functions(known: Sequence[Frontend], root: nn.Module) -> list[Routine]:
    """Python functions that a frontend knows, with every place that names them."""
    entries = [(frontend, *entry) for frontend in known for entry in frontend.functions]
    names = {pattern.rpartition(".")[2] for _, pattern, _ in entries}
    found: dict[int, Routine] = {}
    for holder, attribute, function in matching.places_of_functions(names, root):
        label = matching.qualified_name(function)
        for frontend, pattern, ours in entries:
            if matching.matches(pattern, label) and matching.same_parameters(matching.parameter_names(function), ours):
                replacement = matching.adapter(function, ours, skip_first=False)
                routine = found.setdefault(id(function), Routine(label, frontend.name, function, replacement))
                routine.places.append((holder, attribute, function))
                break
    return list(found.values())
