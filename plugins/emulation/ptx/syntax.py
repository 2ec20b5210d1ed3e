"""Reads the text of a PTX module into kernels, variables and statements, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

IDENTIFIER = r"[A-Za-z_$%][\w$]*"


class PtxError(Exception):
    """A form this translator does not know, or text that is no PTX."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Variable:
    """A module or function variable: `.shared .align 4 .b8 name[128]`. `size` 0: dynamic shared memory."""

    space: str
    name: str
    element: str  # PTX type of one element
    count: int
    alignment: int
    values: tuple[str, ...] = ()  # of an initialiser
    line: int = 0


@dataclass(frozen=True)
class Statement:
    """`kind`: open, close (of a scope), label (text: its name), register, variable, targets, instruction or nothing."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Kernel:
    """An .entry function."""

    name: str
    parameters: tuple[str, ...]
    max_threads: int  # 0 when the source gave no __launch_bounds__
    body: tuple[Statement, ...]
    line: int


@dataclass
class Module:
    """A PTX file."""

    kernels: list[Kernel] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)


_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_LABEL = re.compile(rf"({IDENTIFIER})\s*:(?!:)")
_ENTRY = re.compile(rf"(?:\.(?:visible|weak)\s+)?\.entry\s+({IDENTIFIER})\s*\((.*?)\)([^{{]*)\{{", re.S)
_PARAMETER = re.compile(rf"\.param\b[^,]*?({IDENTIFIER})\s*(?:\[\d*\])?\s*$")
_VARIABLE = re.compile(
    rf"(?:\.(?:visible|extern|weak|common)\s+)*\.(shared|local|global|const)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+({IDENTIFIER})"
    r"\s*(\[(\d*)\])?\s*(?:=\s*\{?(.*?)\}?)?\s*$",
    re.S,
)
_ELEMENT_BYTES = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4, "b64": 8, "u64": 8, "f64": 8}


def parse_variable(text: str, line: int) -> Variable | None:
    """The declaration of a variable, or None when it is something else."""
    found = _VARIABLE.match(text)
    if not found:
        return None
    space, alignment, element, name, array, count, values = found.groups()
    if element not in _ELEMENT_BYTES:
        raise PtxError(f"variable {name} of type .{element}", line)
    elements = int(count or 0) if array else 1
    items = tuple(item.strip() for item in values.split(",")) if values else ()
    return Variable(space, name, element, elements, int(alignment or _ELEMENT_BYTES[element]), items, line)


def byte_size(variable: Variable) -> int:
    """Of the whole array."""
    return variable.count * _ELEMENT_BYTES[variable.element]


def parse_module(text: str) -> Module:
    """Raises PtxError at what it cannot read."""
    text = _COMMENT.sub(lambda comment: "\n" * comment.group().count("\n"), text)
    module = Module()
    position = 0
    for entry in _ENTRY.finditer(text):
        _read_module_level(text, position, entry.start(), module)
        name, parameters, directives = entry.groups()
        line = text.count("\n", 0, entry.start()) + 1
        end = _closing_brace(text, entry.end())
        body = tuple(_statements(text, entry.end(), end, text.count("\n", 0, entry.end()) + 1))
        module.kernels.append(Kernel(name, _parameters(parameters, line), _max_threads(directives), body, line))
        position = end + 1
    _read_module_level(text, position, len(text), module)
    return module


def _parameters(text: str, line: int) -> tuple[str, ...]:
    names = []
    for parameter in filter(None, map(str.strip, text.split(","))):
        found = _PARAMETER.match(parameter)
        if not found:
            raise PtxError(f"kernel parameter '{parameter}'", line)
        names.append(found.group(1))
    return tuple(names)


def _max_threads(directives: str) -> int:
    found = re.search(r"\.maxntid\s+([\d,\s]+)", directives)
    threads = 1
    for size in found.group(1).split(",") if found else ["0"]:
        threads *= int(size)
    return threads


def _blank(pattern: str, text: str) -> str:
    """Removes what the pattern matches, but keeps its lines."""
    return re.sub(pattern, lambda removed: "\n" * removed.group().count("\n"), text, flags=re.S | re.M)


def _read_module_level(text: str, start: int, end: int, module: Module) -> None:
    """Variables between functions. Device functions are skipped: calling one is an error of its own."""
    # .version, .target and .address_size end with their line, not with a semicolon.
    outside = _blank(r"^[ \t]*\.(version|target|address_size)\b[^\n]*$", text[start:end])
    outside = _blank(r"(\.(visible|extern|weak)\s+)*\.func\b.*?(^\}|;)", outside)
    line = text.count("\n", 0, start) + 1
    for statement in outside.split(";"):
        first = line + statement.count("\n", 0, len(statement) - len(statement.lstrip()))
        declaration = statement.strip()
        if declaration.startswith((".file", ".section")):
            raise PtxError("debug information; compile without -lineinfo and -g", first)
        if declaration:
            variable = parse_variable(declaration, first)
            if variable is None:
                raise PtxError(f"declaration '{declaration.splitlines()[0]}'", first)
            module.variables.append(variable)
        line += statement.count("\n")


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return start + brace.start()
    raise PtxError("a function without an end", text.count("\n", 0, start) + 1)


def _statements(text: str, position: int, end: int, line: int) -> Iterator[Statement]:
    counted = position
    while position < end:
        character = text[position]
        if character.isspace():
            position += 1
            continue
        line += text.count("\n", counted, position)
        counted = position
        label = _LABEL.match(text, position)
        if character in "{}":
            yield Statement("open" if character == "{" else "close", character, line)
            position += 1
        elif label:
            yield Statement("label", label.group(1), line)
            position = label.end()
        else:
            stop = text.find(";", position, end)
            if stop < 0:
                raise PtxError("a statement without ';'", line)
            statement = " ".join(text[position:stop].split())
            yield Statement(_kind(statement), statement, line)
            position = stop + 1


def _kind(statement: str) -> str:
    directive = re.match(r"\.\w+", statement)
    if not directive:
        return "instruction"
    return {".reg": "register", ".branchtargets": "targets", ".pragma": "nothing", ".loc": "nothing"}.get(directive.group(), "variable")
