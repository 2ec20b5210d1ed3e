"""Models named on the command line: `path/file.py:factory` or `package.module:factory`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from deploydcn.errors import InvalidModel


@dataclass(frozen=True)
class BuiltModel:
    """What a factory made: the model, and example inputs if it gave any."""

    model: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_example(self) -> bool:
        return bool(self.args or self.kwargs)


def build_model(name: str) -> BuiltModel:
    """Call the named factory. It returns a model, or (model, example_inputs): a tensor, a tuple of arguments, or a dict of
    keyword arguments.

    Raises:
        InvalidModel: no such file, module or factory; the factory fails or returns something else.
    """
    location, separator, attribute = name.rpartition(":")
    if not separator or not attribute.isidentifier():
        raise InvalidModel(f"{name!r} names no factory; wanted path/file.py:factory or package.module:factory")
    module = _module(location)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        offered = [key for key, value in vars(module).items() if callable(value) and getattr(value, "__module__", "") == module.__name__]
        raise InvalidModel(f"{location} has no function {attribute!r}; it has {', '.join(offered) or 'none'}")
    try:
        result = factory()
    except Exception as error:
        raise InvalidModel(f"{name} raised {type(error).__name__}: {error}") from error
    return as_built_model(result, name)


def as_built_model(result: Any, name: str = "the factory") -> BuiltModel:
    """Normalize a factory's result; see `build_model`."""
    model, example = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not callable(model):
        raise InvalidModel(f"{name} returned {type(model).__name__}; wanted a torch.nn.Module or (module, example_inputs)")
    if example is None:
        return BuiltModel(model)
    if isinstance(example, Mapping):
        return BuiltModel(model, (), dict(example))
    if isinstance(example, tuple | list):
        return BuiltModel(model, tuple(example))
    return BuiltModel(model, (example,))


def _module(location: str) -> ModuleType:
    if location.endswith(".py"):
        path = Path(location).resolve()
        if not path.is_file():
            raise InvalidModel(f"{location} does not exist; wanted a Python file with the factory")
        spec = importlib.util.spec_from_file_location(f"deploydcn_factory_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise InvalidModel(f"{location} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickles look their module up
        sys.path.insert(0, str(path.parent))
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise InvalidModel(f"{location} failed to import: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(str(path.parent))
        return module
    sys.path.insert(0, "")
    try:
        return importlib.import_module(location)
    except Exception as error:
        raise InvalidModel(f"cannot import {location!r}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove("")
