"""What frontends recognise in a model, replaced, after each replacement is compared with its original."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from deploydcn.errors import ExportError
from deploydcn.export.frontends import frontends, matching
from deploydcn.export.frontends.comparison import Call, CannotRun
from deploydcn.export.frontends.registry import registered
from deploydcn.export.frontends.routines import find_functions, find_kernels
from deploydcn.export.frontends.swaps import Swap, disagreement, find_modules


class Substitution:
    """The replacements for one model. Record or run the example first, then `prove`, then trace what `installed` yields."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.frontends = frontends()
        self.routines = [*find_kernels(self.frontends), *find_functions(self.frontends, root)]
        self.swaps = list(find_modules(self.frontends, root))

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Note what the recognised modules and routines receive."""
        with contextlib.ExitStack() as stack:
            for routine in self.routines:
                stack.enter_context(routine.recording())
            yield stack.enter_context(self._hooks())

    @contextlib.contextmanager
    def without_kernels(self) -> Iterator[nn.Module]:
        """Replacements for the kernels and functions only, some of which this machine may lack; inputs are noted. Yields the model."""
        with contextlib.ExitStack() as stack:
            for routine in self.routines:
                stack.enter_context(routine.replaced())
            stack.enter_context(self._hooks())
            yield self.root

    @contextlib.contextmanager
    def without_originals(self) -> Iterator[nn.Module]:
        """All replacements, chosen unseen: for models that do not run without them. Yields the model to run."""
        for swap in self.swaps:
            candidates = swap.candidates(swap.module)
            swap.chosen = candidates[0] if len(candidates) == 1 else None
        with self.without_kernels(), self._swapped() as root:
            yield root

    @contextlib.contextmanager
    def installed(self) -> Iterator[nn.Module]:
        """Everything replaced, and what cannot be traced patched. Yields the model to trace."""
        with contextlib.ExitStack() as stack:
            for frontend in self.frontends:
                stack.enter_context(frontend.patch())
            stack.enter_context(self.without_kernels())
            yield stack.enter_context(self._swapped())

    def unused(self) -> list[str]:
        """Names the user registered that nothing in this model has."""
        used = {
            name for swap in self.swaps for kind in matching.classes_of_forward(swap.module) for name in [matching.qualified_name(kind)]
        }
        used |= {routine.label for routine in self.routines}
        return [pattern for pattern in registered() if not any(matching.matches(pattern, name) for name in used)]

    def prove(self) -> list[str]:
        """Compare, choose among candidates, and say what was done: notes for the report.

        Raises:
            ExportError: a replacement computes something else; the message says which, where and how much.
        """
        unused = [f"the frontend registered for {name} met nothing of that name in this model" for name in self.unused()]
        return [*self._prove_routines(), *self._prove_swaps(), *unused]

    def _prove_routines(self) -> Iterator[str]:
        for routine in self.routines:
            if routine.call is None:
                continue
            try:
                differences = list(routine.differences())
            except CannotRun as error:
                yield f"{routine.label} replaced ({routine.frontend}); not compared: it does not run on this machine ({error})"
                continue
            for item in differences:
                if not item.acceptable:
                    raise disagreement(routine.label, routine.frontend, item)
            yield f"{routine.label} replaced ({routine.frontend}); equal within {max(item.worst for item in differences):.2g}"

    def _prove_swaps(self) -> Iterator[str]:
        proven: dict[str, list[float]] = {}
        for swap in self.swaps:
            if swap.call is None:
                if swap.chosen is not None:
                    yield f"{swap.label} replaced ({swap.frontend}); not compared: the model does not run without that on this machine"
                continue
            candidates = swap.candidates(swap.module)
            if not candidates:
                continue
            try:
                worst = swap.choose(candidates)
            except CannotRun as error:
                yield _take_unseen(swap, candidates, error)
                continue
            proven.setdefault(f"{swap.kind} replaced ({swap.frontend})", []).append(worst)
        for what, levels in proven.items():
            yield f"{len(levels)} {what}; equal within {max(levels):.2g}"

    @contextlib.contextmanager
    def _hooks(self) -> Iterator[None]:
        def note(swap: Swap) -> Callable[..., None]:
            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if swap.call is None:
                    swap.call = Call.of(args, kwargs)

            return hook

        handles = [swap.module.register_forward_pre_hook(note(swap), prepend=True, with_kwargs=True) for swap in self.swaps]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def _swapped(self) -> Iterator[nn.Module]:
        chosen = {id(swap.module): swap.chosen for swap in self.swaps if swap.chosen is not None}
        parents = {id(parent): parent for module in (self.root, *chosen.values()) for parent in module.modules()}
        changed = []
        for parent in parents.values():
            for name, child in parent._modules.items():
                # A replacement may well contain its original: there it stays.
                if id(child) in chosen and not any(parent is inside for inside in chosen[id(child)].modules()):
                    changed.append((parent, name, child))
                    parent._modules[name] = chosen[id(child)]
        try:
            yield chosen.get(id(self.root), self.root)
        finally:
            for parent, name, child in changed:
                parent._modules[name] = child


def _take_unseen(swap: Swap, candidates: list[nn.Module], error: CannotRun) -> str:
    """The only candidate, although its original does not run here."""
    if len(candidates) > 1:
        raise ExportError(
            f"{swap.label} may mean {len(candidates)} different things, which only a run can tell apart, and it does not run on this "
            f"machine ({error}); register a frontend of your own for it"
        )
    swap.chosen = candidates[0]
    return f"{swap.label} replaced ({swap.frontend}); not compared: it does not run on this machine ({error})"
