"""Configurations: read TOML, find mistakes before anything runs, fill in the defaults."""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from twophase_fast._types import ConfigError, StorageError
from twophase_fast.experiments.schema import REQUIRED, SCHEMA, Key, Table

Config = dict[str, Any]
_PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names `load_preset` knows."""
    return sorted(path.stem for path in _PRESETS.glob("*.toml"))


def load_preset(name: str) -> Config:
    """Return the configuration of a preset, as written in its file.

    Raises:
        ConfigError: There is no such preset.
    """
    if name not in preset_names():
        raise ConfigError(
            f"unknown preset {name!r}{_nearest(name, preset_names())}; known: {', '.join(preset_names())}"
        )
    return read_config(_PRESETS / f"{name}.toml")


def read_config(path: str | Path) -> Config:
    """Return the configuration in a TOML file, unchecked.

    Raises:
        StorageError: The file is missing or cannot be read.
        ConfigError: It is not valid TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def set_value(config: Mapping[str, Any], assignment: str) -> Config:
    """Return a configuration with one value replaced, as by `--set chaos.horizons=[50,100]`.

    Args:
        config: Left as it is.
        assignment: `key=value` or `table.key=value`; the value is read as TOML, and as text where it is none.

    Raises:
        ConfigError: No `=` or no key, or the key leads through something that is not a table.
    """
    name, equals, text = assignment.partition("=")
    parts = [part.strip() for part in name.split(".")]
    if not equals or not all(parts):
        raise ConfigError(f"{assignment!r} sets nothing; expected key=value, such as optimizer.lr=0.05")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    result = copy.deepcopy(dict(config))
    table = result
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"cannot set {name.strip()!r}: {part!r} is a value, not a table")
    table[parts[-1]] = value
    return result


def resolve_config(config: Mapping[str, Any]) -> Config:
    """Check every key and value and fill in the defaults.

    Returns:
        A new nested dict with every known key (absent optional tables and values are None).

    Raises:
        ConfigError: An unknown key (the nearest known one is named), a missing one, or a value of the wrong kind.
    """
    if "switch" in config:
        raise ConfigError("[switch] (the linearised switch) is not available yet; remove the table")
    return _resolve(config, SCHEMA, "")


def _resolve(values: Mapping[str, Any], table: Table, prefix: str) -> Config:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')} is {values!r}; expected a table")
    for name in values:
        if name not in table.keys:
            raise ConfigError(f"unknown key {prefix + name!r}{_nearest_key(prefix, name, table)}")
    return {name: _value(values.get(name, REQUIRED), entry, prefix + name) for name, entry in table.keys.items()}


def _value(value: Any, entry: Key | Table, name: str) -> Any:
    if isinstance(entry, Table):
        if entry.optional and (value is REQUIRED or value is None):
            return None
        return _resolve({} if value is REQUIRED else value, entry, f"{name}.")
    if value is REQUIRED:
        if entry.default is REQUIRED:
            raise ConfigError(f"key {name!r} is missing ({entry.meaning}); expected {entry.expects}")
        return copy.deepcopy(entry.default)
    if not entry.valid(value):
        raise ConfigError(f"{name} is {value!r}; expected {entry.expects} ({entry.meaning})")
    return copy.deepcopy(value)


def _nearest_key(prefix: str, name: str, table: Table) -> str:
    here = difflib.get_close_matches(name, table.keys, n=1, cutoff=0.6)
    if here:
        return f"; did you mean {prefix + here[0]!r}?"
    elsewhere = [full for full in _all_keys(SCHEMA) if full.rsplit(".", 1)[-1] == name]
    full_names = elsewhere or difflib.get_close_matches(prefix + name, list(_all_keys(SCHEMA)), n=1, cutoff=0.0)
    return f"; did you mean {full_names[0]!r}? Keys here: {', '.join(table.keys)}"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _all_keys(table: Table, prefix: str = "") -> Iterator[str]:
    for name, entry in table.keys.items():
        yield prefix + name
        if isinstance(entry, Table):
            yield from _all_keys(entry, f"{prefix}{name}.")


def differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of the keys whose values differ."""
    names = []
    for name in sorted({*first, *second}):
        a, b = first.get(name), second.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            names.append(prefix + name)
    return names
