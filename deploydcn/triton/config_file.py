"""Reading a config.pbtxt with the line of every field, past its mistakes.

protobuf's own parser stops at the first mistake and forgets where fields were. Here every field is handed to it by itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deploydcn._lazy import lazy_import

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)|(?P<name>[A-Za-z_]\w*)|(?P<value>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[-+]?[.\w][-+.\w]*)|(?P<mark>[-{}<>\[\]:,;])"""
)
_CLOSING = {"{": "}", "<": ">", "[": "]"}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


class _Broken(Exception):
    """The text has no structure from here on."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class ConfigFile:
    """message: an inference.ModelConfig with all that could be read. mistakes: (line, what is wrong). whole: it was read to its end."""

    message: Any
    mistakes: list[tuple[int, str]] = field(default_factory=list)
    whole: bool = True
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)

    def line(self, *path: str | int) -> int | None:
        """Where a field is, as in line("input", 0, "dims"); where what it belongs to is when it is not given; None for the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def parse(text: str) -> ConfigFile:
    """Read the text of a configuration.

    Raises:
        MissingDependency: tritonclient, which has the format's schema, is not installed.
    """
    schema = lazy_import("tritonclient.grpc.model_config_pb2", extra="triton")
    result = ConfigFile(schema.ModelConfig())
    try:
        tokens = _tokens(text)
        end = _Reader(tokens, result).fields(0, result.message, (), "")
        if end < len(tokens):
            raise _Broken(tokens[end].line, f"{tokens[end].text!r} closes nothing")
    except _Broken as error:
        result.mistakes.append((error.line, str(error)))
        result.whole = False
    return result


def _tokens(text: str) -> list[_Token]:
    tokens, position, line = [], 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _Broken(line, f"{text[position : position + 10].splitlines()[0]!r} is not of the text format of protobuf")
        if match.lastgroup != "skip":
            tokens.append(_Token(match.lastgroup or "", match[0], line))
        line += match[0].count("\n")
        position = match.end()
    return tokens


@dataclass
class _Reader:
    tokens: Sequence[_Token]
    result: ConfigFile

    def fields(self, at: int, message: Any, path: tuple[str | int, ...], closing: str) -> int:
        """Read fields into a message until `closing`; the index behind it."""
        known = message.DESCRIPTOR.fields_by_name
        while True:
            if at >= len(self.tokens):
                if closing:
                    raise _Broken(self.tokens[-1].line, f"the file ends where a {closing!r} is wanted; it may be truncated")
                return at
            token = self.tokens[at]
            if token.text == closing:
                return at + 1
            if token.text in ",;":
                at += 1
                continue
            if token.kind != "name":
                if not closing and token.text in _CLOSING.values():
                    return at
                raise _Broken(token.line, f"{token.text!r} stands where the name of a field is wanted")
            end = self._extent(at)
            if token.text not in known:
                close = difflib.get_close_matches(token.text, known, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                self.result.mistakes.append((token.line, f"{message.DESCRIPTOR.name} has no field {token.text!r}{hint}"))
            else:
                self._field(at, end, message, known[token.text], path)
            at = end

    def _field(self, at: int, end: int, message: Any, descriptor: Any, path: tuple[str | int, ...]) -> None:
        """Tokens at ... end are one field."""
        name = descriptor.name
        repeated = hasattr(getattr(message, name), "add")  # of messages; maps and lists of values are read whole
        value = at + 1 + (self.tokens[at + 1].text == ":")
        several = hasattr(getattr(message, name), "__len__") and not isinstance(getattr(message, name), str)
        if not several and (*path, name) in self.result.lines:
            self.result.mistakes.append((self.tokens[at].line, f"{name} is given twice"))
            return
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            self.result.lines.setdefault((*path, name), self.tokens[at].line)
            self._merge(at, end, message)
            return
        starts = [value] if self.tokens[value].text != "[" else list(self._elements(value))
        for start in starts:
            if self.tokens[start].text not in "{<":
                raise _Broken(self.tokens[start].line, f"{name} wants a {{, got {self.tokens[start].text!r}")
            inner = getattr(message, name).add() if repeated else getattr(message, name)
            here = (*path, name, len(getattr(message, name)) - 1) if repeated else (*path, name)
            inner.SetInParent()
            self.result.lines[here] = self.tokens[start if len(starts) > 1 else at].line
            self.fields(start + 1, inner, here, _CLOSING[self.tokens[start].text])

    def _merge(self, at: int, end: int, message: Any) -> None:
        """Let protobuf read one field."""
        from google.protobuf import text_format

        text = "".join(token.text + " " * (token.text != "-") for token in self.tokens[at:end])
        try:
            text_format.Merge(text, message)
        except text_format.ParseError as error:
            self.result.mistakes.append((self.tokens[at].line, re.sub(r"^[\d:]+ : |^'.*?': ", "", str(error)).partition("\n")[0]))

    def _extent(self, at: int) -> int:
        """The index behind the field that begins at a name."""
        value = at + 1
        if value < len(self.tokens) and self.tokens[value].text == ":":
            value += 1
        if value >= len(self.tokens):
            raise _Broken(self.tokens[at].line, f"{self.tokens[at].text} has no value; the file may be truncated")
        if self.tokens[value].text in _CLOSING:
            return self._matching(value) + 1
        if value == at + 1:
            raise _Broken(self.tokens[at].line, f"{self.tokens[at].text} wants a : or a {{")
        if self.tokens[value].text == "-":
            value += 1
        end = value + 1
        while end < len(self.tokens) and self.tokens[value].text[0] in "\"'" and self.tokens[end].text[0] in "\"'":
            end += 1  # strings side by side are one
        return end

    def _matching(self, at: int) -> int:
        stack = []
        for index in range(at, len(self.tokens)):
            token = self.tokens[index]
            if token.text in _CLOSING:
                stack.append(_CLOSING[token.text])
            elif stack and token.text == stack[-1]:
                stack.pop()
                if not stack:
                    return index
            elif token.kind == "mark" and token.text in _CLOSING.values():
                raise _Broken(token.line, f"{token.text!r} stands where a {stack[-1]!r} is wanted")
        raise _Broken(self.tokens[at].line, f"the {self.tokens[at].text!r} is never closed; the file may be truncated")

    def _elements(self, at: int) -> Sequence[int]:
        """Where the elements of a list of messages begin."""
        starts, index, end = [], at + 1, self._matching(at)
        while index < end:
            if self.tokens[index].text != ",":
                starts.append(index)
                index = self._matching(index) if self.tokens[index].text in _CLOSING else index
            index += 1
        return starts
