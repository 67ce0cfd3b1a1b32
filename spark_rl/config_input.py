"""From text to checked values: reading TOML, applying `--set`, and saying what is wrong in one line."""

import difflib
import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import date, time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from spark_rl.errors import UserError


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError when it is not there, not readable, or not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(str(path), error.strerror or str(error), "a TOML file", "correct the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"text that is not TOML ({error})", "a TOML file", "correct that line") from error


def set_values(tables: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `tables` with every `SECTION.KEY=VALUE` put in its place; later ones win.

    A value is read as TOML (`0.1`, `[64, 64]`, `true`, `"text"`), and as the string itself where it is none, so that
    `env.id=CartPole-v1` needs no quotes. Raises UserError.
    """
    result = deepcopy(dict(tables))
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or len(path) < 2 or not all(path):
            raise UserError("--set", repr(override), "SECTION.KEY=VALUE", "for example --set rollout.num_groups=4")
        table = result
        for name in path[:-1]:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UserError("--set", repr(override), f"a table at {name!r}, which is a value", "shorten the key")
        table[path[-1]] = parse_value(text.strip())
    return result


def parse_value(text: str) -> Any:
    """The TOML value that `text` is, else `text`. Dates stay text: no key of ours is one."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    return text if len(parsed) > 1 or isinstance(value, date | time) else value


def check_section(where: str, section: str, table: Any, known: type[BaseModel] | Sequence[str] | None) -> Any:
    """`table` as the pydantic model `known`; a list of names checks the keys only, None only that it is a table.

    Raises UserError for the first thing wrong: an unknown key with a suggestion; else the key, the value, the range.
    """
    place = f"{where} [{section}]" if section else where
    if not isinstance(table, Mapping):
        raise UserError(place, repr(table), "a table", f"write [{section}] and its keys below it")
    if known is None:
        return table
    if not isinstance(known, type):
        for key in table:
            if key not in known:
                raise _unknown(place, key, known, "section")
        return table
    for key, value in table.items():
        if isinstance(value, float) and not math.isfinite(
            value
        ):  # JSON, in which a config is stored, has no word for it
            raise UserError(f"{place} {key}", repr(value), "a finite number", f"change {section}.{key}")
    try:
        return known.model_validate(dict(table))
    except ValidationError as error:
        # Unknown keys first: a misspelt key is often also a missing one, and the spelling is what to mend.
        errors = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        raise _complaint(place, section, known, table, errors[0]) from error


# How pydantic begins a message, and how we go on after "wanted".
_WANTED = {
    "Value error, ": "",
    "Input should be greater": "a number greater",
    "Input should be less": "a number less",
    "Input should be a valid tuple": "an array",
    "Input should be a valid dictionary": "a table",
    "Input should be ": "",
    "String should match": "text to match",
    "String should have": "text of",
}


def _complaint(place: str, section: str, model: type[BaseModel], table: Any, error: Any) -> UserError:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return _unknown(place, path, list(model.model_fields) if len(error["loc"]) == 1 else [], "key")
    if error["type"] == "missing":
        todo = f"write it in the file or say --set {section}.{path}=VALUE"
        return UserError(place, f"no {path!r}", "a value for it", todo)
    present = _present(table, error["loc"])
    # An element of an array cannot be set alone.
    key = ".".join([section, *(str(part) for part in itertools.takewhile(lambda part: isinstance(part, str), present))])
    path = ".".join(str(part) for part in present)
    wanted = error["msg"]
    for beginning, ours in _WANTED.items():
        if wanted.startswith(beginning):
            wanted = ours + wanted.removeprefix(beginning)
            break
    return UserError(f"{place} {path}".rstrip(), repr(error["input"]), wanted, f"change {key} in the file or by --set")


def _present(table: Any, loc: Sequence[str | int]) -> list[str | int]:
    """The part of pydantic's location that is in the table; it goes on with the tag of the union it tried last."""
    found: list[str | int] = []
    for part in loc:
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            break
        found.append(part)
    return found


def _unknown(place: str, key: str, known: Sequence[str], noun: str) -> UserError:
    """The complaint of rule 6: `key` is the dotted path below `place`; `known` holds the names at the top of it."""
    close = difflib.get_close_matches(key, known, n=1)
    todo = f"did you mean {close[0]!r}?" if close else "correct it or take it out"
    return UserError(place, f"the unknown {noun} {key!r}", f"one of {', '.join(known)}" if known else "", todo)
