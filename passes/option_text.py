"""How option values are spelled in pipeline text: `{max-ops=32 kinds=add,mul label="two words" only=none}`."""

from __future__ import annotations

import json
import re
import types
import typing
from typing import Any

from ingot.errors import CompileError

__all__ = ["format_value", "parse_value", "split", "type_name"]

_BARE = re.compile(r"[\w./:+@%-]+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_CLOSING = {"(": ")", "{": "}", "[": "]"}
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def split(text: str, separator: str) -> list[str]:
    """Split at `separator` outside brackets and JSON strings; parts are stripped. `" "` splits at runs of blanks.

    Raises:
        CompileError: a bracket or a quote is not closed.
    """
    parts, open_brackets, start, i = [], [], 0, 0
    while i < len(text):
        ch = text[i]
        if ch == '"':
            match = _STRING.match(text, i)
            if match is None:
                raise CompileError(f"unterminated string in pipeline: {text[i:]}", cure='close it with "')
            i = match.end()
            continue
        if ch in _CLOSING:
            open_brackets.append(_CLOSING[ch])
        elif ch in ")}]":
            if not open_brackets or open_brackets.pop() != ch:
                raise CompileError(f"unbalanced {ch!r} in pipeline: {text[: i + 1]}", cure="remove it or open its pair")
        elif not open_brackets and (ch.isspace() if separator == " " else ch == separator):
            parts.append(text[start:i])
            start = i + 1
        i += 1
    if open_brackets:
        raise CompileError(f"missing {open_brackets[-1]!r} in pipeline: {text}", cure="close the bracket")
    parts = [part.strip() for part in [*parts, text[start:]]]
    return [part for part in parts if part] if separator == " " else parts


def parse_value(text: str, kind: Any) -> Any:
    """The value that option text denotes for a field of type `kind`.

    Raises:
        ValueError: the text is not of that type.
        TypeError: no pass option may have that type.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if _is_optional(kind):
        return None if text == "none" else parse_value(text, _without_none(kind))
    if origin is typing.Literal:
        value = _unquote(text)
        if value not in args:
            raise ValueError(value)
        return value
    if origin in (list, tuple):
        return origin(parse_value(part, args[0]) for part in split(text, ",")) if text else origin()
    if kind is bool:
        if text not in _BOOLS:
            raise ValueError(text)
        return _BOOLS[text]
    if kind in (int, float):
        return kind(text)
    if kind is str:
        return _unquote(text)
    raise TypeError(f"a pass option is an int, float, bool, str, Literal, or a list or tuple of these, not {kind}")


def format_value(value: Any) -> str:
    """The text of an option value; `parse_value` reads it back."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(format_value, value))
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) and value != "none" else json.dumps(value)
    return repr(value)


def type_name(kind: Any) -> str:
    """A type as people write it in documentation: `int`, `list of int`, `one of a, b`, `int or none`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if _is_optional(kind):
        return f"{type_name(_without_none(kind))} or none"
    if origin is typing.Literal:
        return f"one of {', '.join(args)}"
    if origin in (list, tuple):
        return f"list of {type_name(args[0])}"
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _is_optional(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType) and type(None) in typing.get_args(kind)


def _without_none(kind: Any) -> Any:
    return next(a for a in typing.get_args(kind) if a is not type(None))


def _unquote(text: str) -> str:
    if text.startswith('"'):
        return json.loads(text)  # JSONDecodeError is a ValueError
    if not _BARE.fullmatch(text):
        raise ValueError(text)
    return text
