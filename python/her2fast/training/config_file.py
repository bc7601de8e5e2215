# SPDX-License-Identifier: Apache-2.0
"""Reads a training configuration; every complaint names file, line, key and values."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from her2fast.errors import UsageError

MAX_BYTES = 1 << 20
#: Values of these keys are paths, relative to the file's folder.
PATH_KEYS = frozenset(
    [
        ("data", "manifest"),
        ("data", "splits"),
        ("data", "annotations"),
        ("data", "segmenter"),
        ("data", "cache"),
        ("package", "segmenter"),
        ("histogram", "reference"),
        ("start",),
    ]
)
#: What `weights` may say instead of a file.
HUB = "hub"

_TABLE = re.compile(r"^\s*\[\s*([A-Za-z0-9_.-]+)\s*\]")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.-]+)\s*=")

Config = TypeVar("Config", bound=BaseModel)


def load_config(
    path: Path, kind: type[Config], changes: Sequence[str] = ()
) -> tuple[Config, str]:
    """The checked configuration and the file's text.

    `changes` are "table.key=value" with a TOML value (bare words are strings); they
    win over the file. Raises `UsageError` with every complaint, one a line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: need at most {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
        content = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not TOML: {error}") from error
    absolute_paths(content, path.resolve().parent)
    changed: set[tuple[str, ...]] = set()
    for change in changes:
        place, value = _parse_change(change)
        _put(content, place, value, change)
        changed.add(place)
    absolute_paths(content, Path.cwd())  # those of `changes`
    try:
        return kind.model_validate(content), text
    except ValidationError as error:
        lines = _lines(text)
        complaints = sorted(
            _complaint(path, kind, lines, changed, problem)
            for problem in error.errors()
        )
        raise UsageError("\n".join(text for _, text in complaints)) from error


def absolute_paths(content: dict[str, Any], folder: Path) -> None:
    """Make the paths of a parsed configuration absolute, in place."""
    for keys in PATH_KEYS:
        table: Any = content
        for key in keys[:-1]:
            table = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(table.get(keys[-1]), str):
            table[keys[-1]] = str(folder / table[keys[-1]])
    model = content.get("model")
    weights = model.get("weights") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(weights, str) and weights != HUB:
        model["weights"] = str(folder / weights)


def _parse_change(change: str) -> tuple[tuple[str, ...], Any]:
    name, equals, text = change.partition("=")
    place = tuple(part.strip() for part in name.split("."))
    if not equals or not all(place):
        raise UsageError(f"--set {change}: need table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return place, value


def _put(
    content: dict[str, Any], place: tuple[str, ...], value: Any, change: str
) -> None:
    table = content
    for key in place[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {change}: {key!r} is a value, not a table")
        table = inner
    table[place[-1]] = value


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Line of every table and key, as far as a line-wise look finds them."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.match(line):
            table = tuple(match[1].split("."))
            found.setdefault(table, number)
        elif match := _KEY.match(line):
            found.setdefault((*table, *match[1].split(".")), number)
    return found


def _complaint(
    path: Path,
    kind: type[BaseModel],
    lines: Mapping[tuple[str, ...], int],
    changed: set[tuple[str, ...]],
    problem: Any,
) -> tuple[int, str]:
    """Line, 0 where unknown, and the sentence."""
    keys = _known_place(kind, [str(part) for part in problem["loc"]])
    line = next(
        (lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in lines), None
    )
    if any(keys[: len(change)] == change for change in changed):
        place = f"--set {'.'.join(keys)}"
    else:
        place = f"{path}, line {line}" if line else f"{path}"
    return line or 0, f"{place}: {_sentence(kind, keys, problem)}"


def _sentence(kind: type[BaseModel], keys: tuple[str, ...], problem: Any) -> str:
    name = f"[{keys[0]}] {'.'.join(keys[1:])}" if len(keys) > 1 else ".".join(keys)
    kind_of_problem = problem["type"]
    if kind_of_problem == "extra_forbidden":
        allowed = ", ".join(_section(kind, keys[:-1]).model_fields)
        return f"unknown key {name}; need one of: {allowed}"
    if kind_of_problem == "missing":
        return f"key {name} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if kind_of_problem == "value_error":
        return f"{name}: {message}" if name else message
    message = message.removeprefix("Input should be ")
    return f"{name}: need {message}, got {problem['input']!r}"


def _known_place(kind: type[BaseModel], loc: Sequence[str]) -> tuple[str, ...]:
    """The keys of a complaint, without the names pydantic gives to alternatives."""
    keys: list[str] = []
    section: type[BaseModel] | None = kind
    for part in loc:
        if section is None:
            if part.isdigit():
                keys.append(part)
            break
        keys.append(part)
        field = section.model_fields.get(part)
        section = _as_section(field.annotation) if field else None
    return tuple(keys)


def _section(kind: type[BaseModel], keys: Sequence[str]) -> type[BaseModel]:
    for key in keys:
        kind = _as_section(kind.model_fields[key].annotation) or kind
    return kind


def _as_section(annotation: Any) -> type[BaseModel] | None:
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def config_text(tables: Mapping[str, Any]) -> str:
    """TOML of values and of tables of values; what stands in no table comes first."""

    def shown(item: Any) -> str:
        if isinstance(item, bool):
            return str(item).lower()
        if isinstance(item, str | Path):
            return json.dumps(str(item), ensure_ascii=False)
        if isinstance(item, list):
            return f"[{', '.join(map(shown, item))}]"
        return repr(item)

    def rows(table: Mapping[str, Any]) -> list[str]:
        return [
            f"{key} = {shown(item)}"
            for key, item in table.items()
            if not isinstance(item, Mapping)
        ]

    lines = rows(tables)
    for name, table in tables.items():
        if isinstance(table, Mapping):
            lines += [f"[{name}]", *rows(table)]
    return "\n".join(lines) + "\n"
