"""What writing a repository did, and what checking one found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class WrittenModel:
    """A model in a repository. path: its folder. max_batch_size: 0 when requests bring the batch axis themselves."""

    name: str
    version: int
    path: Path
    backend: str
    max_batch_size: int
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for logs."""
        batches = f"batches up to {self.max_batch_size}" if self.max_batch_size else "no batching"
        return f"{self.path}: version {self.version}, {self.backend}, {batches}"


@dataclass(frozen=True)
class TritonRepository:
    """A written repository. command: starts the server on it; container: the same in a container."""

    path: Path
    models: tuple[WrittenModel, ...]
    command: str
    container: str

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        models = [{**vars(model), "path": str(model.path), "notes": list(model.notes)} for model in self.models]
        return {"path": str(self.path), "models": models, "command": self.command, "container": self.container}


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file or folder. line: in it, counted from 1; None when there is none. With a warning a model loads all the
    same."""

    path: Path
    line: int | None
    message: str
    warning: bool = False

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {'warning: ' if self.warning else ''}{self.message}"


@dataclass(frozen=True)
class TritonCheck:
    """What is wrong with a repository. models: the folders looked at. server: what a server said that loaded it, "" if none did.
    notes: what was not checked, and why."""

    path: Path
    models: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    server: str = ""

    @property
    def passed(self) -> bool:
        return all(problem.warning for problem in self.problems)

    def summary(self) -> str:
        """One line for logs."""
        warnings = sum(problem.warning for problem in self.problems)
        errors = len(self.problems) - warnings
        counts = f"{_count(len(self.models), 'model')}, {_count(errors, 'problem')}, {_count(warnings, 'warning')}"
        return f"{self.path}: {counts}; {self.server or 'not tried on a server'}"

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        problems = [{**vars(problem), "path": str(problem.path)} for problem in self.problems]
        return {
            "path": str(self.path),
            "passed": self.passed,
            "models": list(self.models),
            "problems": problems,
            "notes": list(self.notes),
            "server": self.server,
        }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
