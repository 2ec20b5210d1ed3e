"""Outputs of torch modules: read off and replaced by forward hooks. What feeds them is found by following every operator once."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from deploydcn.errors import UserError
from deploydcn.parity.taps import Arrays, Operator, Tap, TorchPart
from deploydcn.runners.base import as_array
from deploydcn.runners.torch_runner import TorchRunner

Visit = Callable[[str, str, Any], Any]
"""Called with a module's path, the name of the call and the module's result; may return another result."""

Stop = Callable[[str, str, Any], None]
"""Called with a module's path, the name of the call and its arguments when that module raised."""


class _Enough(BaseException):
    """Ends a run whose rest nobody needs. Not an Exception: nobody in between shall catch it."""


class TorchTaps:
    """See Taps. feeds: by the runner's input names. Modules that run code which is not torch's (NumPy) seem to be fed by nothing. Of a
    model that raises there are the taps until then, and one for the module that raised; no outputs."""

    def __init__(self, runner: TorchRunner, feeds: Arrays) -> None:
        self.runner = runner
        self.feeds = {name: torch.from_numpy(np.array(array)).to(runner.device) for name, array in feeds.items()}
        self.modules = dict(runner.model.named_modules(remove_duplicate=False))

    @cached_property
    def _listing(self) -> _Listing:
        listing = _Listing({path: type(module).__name__ for path, module in self.modules.items()})
        with listing.flow, contextlib.suppress(UserError):
            listing.finish(self._run(listing.visit, listing.begin, listing.stop))
        return listing

    @property
    def taps(self) -> Mapping[str, Tap]:
        return self._listing.taps

    @property
    def outputs(self) -> Mapping[str, str]:
        return self._listing.outputs

    def module_outputs(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for tap in self.taps.values():
            found.setdefault(tap.path, []).append(tap.name)
        return found

    def observe(self, names: Iterable[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """See Taps.observe."""
        wanted, found = set(names), {}

        def visit(_path: str, call: str, result: Any) -> None:
            found.update({name: _copied(tensor) for name, tensor in _named(call, result) if name in wanted})

        outputs = self._run(visit)
        found.update({tap: _copied(outputs[name]) for name, tap in self.outputs.items() if tap in wanted and tap not in found})
        return {name: as_array(tensor) for name, tensor in outputs.items()}, found

    def recompute(self, given: Arrays, names: Sequence[str]) -> dict[str, np.ndarray]:
        """See Taps.recompute. Outputs of modules are replaced by the given arrays, so that what follows reads those."""
        wanted, found = set(names), {}

        def visit(_path: str, call: str, result: Any) -> Any:
            found.update({name: _copied(tensor) for name, tensor in _named(call, result) if name in wanted})
            if len(found) == len(wanted):
                raise _Enough
            return _replaced(call, result, given)

        try:
            outputs = self._run(visit)
        except _Enough:
            return found
        found.update({tap: _copied(outputs[name]) for name, tap in self.outputs.items() if tap in wanted and tap not in found})
        return found

    def operators(self, name: str, given: Iterable[str]) -> tuple[Operator, ...]:
        """See Taps.operators: the modules whose outputs lie between."""
        stop, inside = set(given), {name}
        pending = [name]
        while pending:
            fresh = [source for source in self.taps[pending.pop()].sources if source in self.taps and source not in stop | inside]
            inside.update(fresh)
            pending += fresh
        return tuple(_operator(tap, self.modules[tap.path]) for tap in self.taps.values() if tap.name in inside)

    def parameter(self, name: str) -> np.ndarray | None:
        """See Taps.parameter."""
        return as_array(self.runner.model.get_parameter(name))

    def part(self, name: str, given: Arrays) -> TorchPart:
        """See Taps.part. Modules that pass one tensor on to each other are put into a Sequential."""
        inside = {operator.name: self.modules[operator.path] for operator in self.operators(name, given)}
        paths = {operator.path for operator in self.operators(name, given)}
        waiting: dict[torch.nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        calls: list[tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any], list[torch.Tensor]]] = []

        def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            waiting[module] = _cloned((args, kwargs))

        def visit(path: str, call: str, result: Any) -> Any:
            tensors = dict(_named(call, result))
            if inside.keys() & tensors.keys():
                module = self.modules[path]
                calls.append((module, *waiting[module], [_cloned(tensor) for tensor in tensors.values()]))
            if name in tensors:
                raise _Enough
            return _replaced(call, result, given)

        handles = [self.modules[path].register_forward_pre_hook(note, with_kwargs=True) for path in paths if path]

        def stop(path: str, _call: str, _arguments: Any) -> None:
            if path in paths:  # the candidate's fault is that this module raises
                calls.append((self.modules[path], *waiting[self.modules[path]], []))

        try:
            self._run(visit, stop=stop)
        except (_Enough, UserError):
            pass
        finally:
            for handle in handles:
                handle.remove()
        if not calls:  # the tensor comes from code of the model itself
            return TorchPart(self.runner.model, (), {}, complete=False)
        first = calls[0]
        chain = all(
            not after[2] and len(after[1]) == len(before[3]) == 1 and torch.equal(after[1][0], before[3][0])
            for before, after in itertools.pairwise(calls)
        )
        if len(calls) > 1 and chain and not first[2] and len(first[1]) == 1:
            return TorchPart(torch.nn.Sequential(*(call[0] for call in calls)), first[1], {}, complete=True)
        return TorchPart(calls[-1][0], calls[-1][1], calls[-1][2], complete=len(calls) == 1)

    def _run(
        self, visit: Visit, begin: Callable[[Mapping[str, torch.Tensor]], None] | None = None, stop: Stop | None = None
    ) -> dict[str, torch.Tensor]:
        """Run with hooks on every module; begin sees the inputs as the model gets them. A module that several others share goes by the path
        that the one calling it has for it."""
        calls: Counter[str] = Counter()
        running: list[tuple[torch.nn.Module, str, Any]] = [(self.runner.model, "", None)]
        paths: dict[torch.nn.Module, list[str]] = {}
        for path, module in self.modules.items():
            paths.setdefault(module, []).append(path)

        def named(path: str) -> str:
            return path if calls[path] == 1 else f"{path}#{calls[path]}"

        def enter(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            around = running[-1][1]
            inner = [path for path in paths[module] if not around or path.startswith(f"{around}.")]
            running.append((module, min(inner or paths[module], key=len), (args, kwargs)))

        def leave(module: torch.nn.Module, _args: Any, result: Any) -> Any:
            while running[-1][0] is not module:  # whose forward raised what its caller caught
                running.pop()
            path = running.pop()[1]
            calls[path] += 1
            return visit(path, named(path), result)

        def started(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if begin is not None:
                tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
                begin(dict(zip(self.runner.signature.names, tensors, strict=False)))

        inside = [module for module in paths if module is not self.runner.model]
        handles = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in inside]
        handles += [module.register_forward_hook(leave) for module in inside]
        handles.append(self.runner.model.register_forward_pre_hook(started, with_kwargs=True))
        try:
            return self.runner.call(self.feeds)
        except UserError:
            _, path, arguments = running[-1]
            if stop is not None and path:
                calls[path] += 1
                stop(path, named(path), arguments)
            raise
        finally:
            for handle in handles:
                handle.remove()


class _Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own metaclass
    """From which taps each tensor is computed. Kept by storage, so that views and writes through them count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sources: dict[int, dict[str, None]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = list(_storages((args, kwargs)))
        sources = {name: None for storage in read for name in self.sources.get(storage, ())}
        written = read if func._schema.is_mutable else ()
        for storage in (*_storages(result), *written):
            self.sources[storage] = {**self.sources.get(storage, {}), **sources} if storage in read else dict(sources)
        return result


class _Listing:
    """The taps of one run: every tensor that a module returns, once."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.flow, self.kinds = _Flow(), kinds
        self.taps: dict[str, Tap] = {}
        self.outputs: dict[str, str] = {}
        self._seen: dict[int, tuple[weakref.ref[torch.Tensor], int, str]] = {}

    def begin(self, inputs: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in inputs.items():
            self.flow.sources.update({storage: {f"input {name}": None} for storage in _storages(tensor)})

    def visit(self, path: str, call: str, result: Any) -> None:
        fresh = [(name, tensor) for name, tensor in _named(call, result) if self._tap(tensor) is None]
        for name, tensor in fresh:
            self._add(name, path, tensor)
        for _, tensor in fresh:  # views of one tensor: whoever reads one may read all
            for storage in _storages(tensor):
                self.flow.sources[storage] = {name: None for name, other in fresh if storage in _storages(other)}

    def finish(self, outputs: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in outputs.items():
            tap = self._tap(tensor)
            if tap is None:
                tap = f"output {name}"
                self._add(tap, "", tensor)
            self.outputs[name] = tap

    def stop(self, path: str, call: str, arguments: Any) -> None:
        self.taps[call] = Tap(call, path, self._sources(arguments), self.kinds[path])

    def _add(self, name: str, path: str, tensor: torch.Tensor) -> None:
        dtype = as_array(tensor[:0] if tensor.ndim else tensor).dtype
        self.taps[name] = Tap(name, path, self._sources(tensor), self.kinds[path], tuple(tensor.shape), dtype)
        self._seen[id(tensor)] = (weakref.ref(tensor), tensor._version, name)

    def _sources(self, values: Any) -> tuple[str, ...]:
        return tuple({source: None for storage in _storages(values) for source in self.flow.sources.get(storage, ())})

    def _tap(self, tensor: torch.Tensor) -> str | None:
        """The tap that this very tensor is already, unless it was written to since."""
        reference, version, name = self._seen.get(id(tensor), (lambda: None, 0, ""))
        return name if reference() is tensor and version == tensor._version else None


def _named(call: str, result: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """A result's tensors: "conv1", or "lstm[0]", "lstm[1]" where there are several."""
    tensors = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    for index, tensor in enumerate(tensors):
        yield (call if len(tensors) == 1 else f"{call}[{index}]"), tensor


def _replaced(call: str, result: Any, given: Arrays) -> Any:
    """A result with the given arrays in the places of its tensors; None when none of them is given."""
    names = iter(dict(_named(call, result)))
    leaves, structure = pytree.tree_flatten(result)
    changed = False
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            array = given.get(next(names))
            if array is not None:
                changed = True
                leaves[index] = torch.from_numpy(np.array(array)).to(leaf)
    return pytree.tree_unflatten(leaves, structure) if changed else None


def _storages(values: Any) -> Iterator[int]:
    for leaf in pytree.tree_leaves(values):
        if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided and leaf.numel():
            yield leaf.untyped_storage().data_ptr()


def _copied(tensor: torch.Tensor) -> np.ndarray:
    return np.array(as_array(tensor))


def _cloned(values: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone(), values)


def _operator(tap: Tap, module: torch.nn.Module) -> Operator:
    plain = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and isinstance(value, bool | int | float | str | tuple)
    }
    parameters = tuple(f"{tap.path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False))
    return Operator(tap.name, type(module).__name__, tap.path, plain, parameters)
