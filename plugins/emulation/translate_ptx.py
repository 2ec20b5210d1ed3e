"""Translates nvcc's PTX into C++ that runs on the emulator: the same kernels, as nvcc compiled them.

An instruction or operand form that is not known is an error naming it, its kernel and line; nothing is written then.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from ptx import conversions, floats, integers, memory, warps  # noqa: F401  each fills its part of the table
from ptx.function import Function, cpp_name, literal
from ptx.syntax import Kernel, Module, PtxError, Statement, Variable, byte_size, parse_module, parse_variable
from ptx.table import parse_instruction, translate
from ptx.types import TYPES

ENGINES = {"ptx75": "kPtx75", "ptx80": "kPtx80"}
RED_ZONE = 64  # bytes between static shared arrays
_PREDICATED = re.compile(r"@(!?[%$\w]+)\s+(.*)", re.S)
_REGISTERS = re.compile(r"\.reg\s*\.(\w+)\s+(.*)", re.S)
_REGISTER_RANGE = re.compile(r"([%\w$]+)<(\d+)>")


def shared_variables(kernel: Kernel, module: Module) -> list[Variable]:
    """Those the kernel's own statements declare, and those of the module it mentions."""
    mentioned = set(re.findall(r"[\w$]+", " ".join(statement.text for statement in kernel.body)))
    own = [parse_variable(statement.text, statement.line) for statement in kernel.body if statement.kind == "variable"]
    known = [*filter(None, own), *(variable for variable in module.variables if variable.name in mentioned)]
    return [variable for variable in known if variable.space == "shared"]


def place_shared(variables: list[Variable]) -> tuple[dict[str, int], int]:
    """Offsets of all arrays, with red zones between them, and where dynamic shared memory begins."""
    offsets: dict[str, int] = {}
    end = 0
    for variable in variables:
        if variable.count:
            offsets[variable.name] = -(-(end + (RED_ZONE if end else 0)) // variable.alignment) * variable.alignment
            end = offsets[variable.name] + byte_size(variable)
    dynamic = -(-(end + RED_ZONE) // 128) * 128 if end else 0
    return offsets | {variable.name: dynamic for variable in variables if not variable.count}, dynamic


class KernelWriter:
    """Writes one kernel as a C++ function."""

    def __init__(self, kernel: Kernel, module: Module) -> None:
        self.kernel = kernel
        self.shared = shared_variables(kernel, module)
        self.offsets, self.dynamic_offset = place_shared(self.shared)
        tables = {variable.name: variable for variable in module.variables if variable.space in ("global", "const")}
        self.function = Function(kernel, self.offsets, tables)
        self.declarations: list[str] = []
        self.code: list[str] = []
        self.failures: dict[str, str] = {}  # one for each kind

    def write(self, index: int) -> list[str]:
        for label, targets in zip(self.kernel.body, self.kernel.body[1:], strict=False):
            if targets.kind == "targets":
                self.function.branch_targets[label.text] = targets.text.split(" ", 1)[1].replace(" ", "").split(",")
        for statement in self.kernel.body:
            try:
                getattr(self, f"_{statement.kind}")(statement)
            except (PtxError, KeyError, ValueError) as error:
                opcode = statement.text.split(" ", 1)[0] if statement.text[0] != "@" else statement.text.split(" ", 2)[1]
                where = f"kernel {self.kernel.name} line {getattr(error, 'line', 0) or statement.line}"
                self.failures.setdefault(opcode, f"{where}: {statement.text}: {error}")
        return self._whole_function(index)

    def _whole_function(self, index: int) -> list[str]:
        arrays = [
            f'{{"{variable.name}", {self.offsets[variable.name]}, {byte_size(variable)}}}' for variable in self.shared if variable.count
        ]
        return [
            f"static const SharedArray shared_{index}[] = {{{', '.join([*arrays, '{}'])}}};",
            f"static void kernel_{index}(void* const* P) {{",
            f"  const SharedBlock S = shared_block(shared_{index}, {len(arrays)}, {self.dynamic_offset});",
            "  const ThreadState& T = *current_thread;",
            *self.declarations,
            *self.code,
            "}",
        ]

    def _open(self, statement: Statement) -> None:
        self.function.scopes.append({})
        self.code.append("  {")

    def _close(self, statement: Statement) -> None:
        self.function.scopes.pop()
        self.code.append("  }")

    def _label(self, statement: Statement) -> None:
        self.code.append(f" {cpp_name(statement.text)}:;")

    def _targets(self, statement: Statement) -> None:
        self.code.append("  ;")

    def _nothing(self, statement: Statement) -> None:
        pass

    def _register(self, statement: Statement) -> None:
        found = _REGISTERS.fullmatch(statement.text)
        if not found or found.group(1) not in TYPES:
            raise PtxError("register declaration")
        kind = TYPES[found.group(1)]
        names: list[str] = []
        for name in found.group(2).replace(" ", "").split(","):
            several = _REGISTER_RANGE.fullmatch(name)
            names += [f"{several.group(1)}{number}" for number in range(int(several.group(2)))] if several else [name]
        self.function.scopes[-1].update(dict.fromkeys(names, kind))
        outermost = len(self.function.scopes) == 1
        # A goto may not jump over an initialisation, so inner registers have none.
        variables = ", ".join(cpp_name(name) + ("{}" if outermost else "") for name in names)
        (self.declarations if outermost else self.code).append(f"  {kind.cpp} {variables};")

    def _variable(self, statement: Statement) -> None:
        variable = parse_variable(statement.text, statement.line)
        if variable is None or variable.space not in ("local", "shared"):
            raise PtxError("declaration")
        if variable.space == "local":
            self.function.local[variable.name] = variable
            size, name = byte_size(variable), cpp_name(variable.name)
            self.declarations.append(f"  alignas({max(16, variable.alignment)}) unsigned char {name}[{size}]; fill_local({name}, {size});")

    def _instruction(self, statement: Statement) -> None:
        text, condition = statement.text, ""
        predicated = _PREDICATED.fullmatch(text)
        if predicated:
            condition, text = f"if ({self.function.value(predicated.group(1), TYPES['pred'])}) ", predicated.group(2)
        body = translate(parse_instruction(text, statement.line), self.function)
        plain = body.count(";") == 1 and not body.startswith(("const", "bool"))
        self.code.append(f"  {condition}{body}" if plain else f"  {condition}{{ {body} }}")


def write_table(variable: Variable) -> str:
    """A module's variable: nvcc puts constant arrays of the source there."""
    if variable.space == "const" and not variable.values:
        raise PtxError(f"__constant__ {variable.name} without a value", variable.line)
    kind = TYPES[variable.element]
    try:
        # 0f and 0d: the bits of a floating-point number.
        numbers = [int(value[2:], 16) if value[:2].lower() in ("0f", "0d") else int(value.rstrip("U"), 0) for value in variable.values]
    except ValueError:
        raise PtxError(f"the value of {variable.name}", variable.line) from None
    items = [literal(number, TYPES[f"u{kind.bits}"]) for number in numbers]
    return f"alignas({variable.alignment}) static uint{kind.bits}_t {cpp_name(variable.name)}[{variable.count}] = {{{', '.join(items)}}};"


def translate_module(module: Module, engine: str, file: str) -> tuple[str, list[str]]:
    """The C++ text, and what could not be translated."""
    code = [f"// Written by translate_ptx.py from {file}.", '#include "emulation/ptx_support.h"', "namespace {"]
    code.append(f'const char kFile[] = "{file}";')
    code.append("inline Site site(int line) { return {kFile, line}; }")
    code += [write_table(variable) for variable in module.variables if variable.space in ("global", "const")]
    code.append("}")
    failures: list[str] = []
    entries = []
    for index, kernel in enumerate(module.kernels):
        writer = KernelWriter(kernel, module)
        code += writer.write(index)
        failures += writer.failures.values()
        # The source form, if this program has one, by the name both compilers give it.
        code.append(f'extern "C" const char source_{index}[] __asm__("{kernel.name}") __attribute__((weak));')
        entries.append(f'  {{Engine::{ENGINES[engine]}, "{kernel.name}", source_{index}, kernel_{index}, {kernel.max_threads}}},')
    code += ["static const PtxEntry entries[] = {", *entries, "};", f"static const PtxRegistration registration(entries, {len(entries)});"]
    return "\n".join(code) + "\n", failures


def main() -> int:
    """0, or 1 with the reasons on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="what nvcc -ptx wrote")
    parser.add_argument("output", type=Path, help="the C++ file to write")
    parser.add_argument("--engine", choices=ENGINES, required=True)
    arguments = parser.parse_args()
    try:
        module = parse_module(arguments.source.read_text())
        if not module.kernels:
            raise PtxError("no kernels: they need external linkage, and templates must be instantiated")
        code, failures = translate_module(module, arguments.engine, arguments.source.name)
    except PtxError as error:
        code, failures = "", [f"line {error.line}: {error}"]
    for failure in failures:
        print(f"{arguments.source.name}: {failure}", file=sys.stderr)
    if not failures:
        arguments.output.write_text(code)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
