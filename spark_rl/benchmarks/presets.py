"""The presets of conf/, which lie beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

import spark_rl
from spark_rl.config import RunConfig, load_config
from spark_rl.errors import UserError

_CONF = Path(spark_rl.__file__).resolve().parents[1] / "conf"


def preset_file(name: str) -> Path:
    """`ppo_cartpole` is conf/ppo_cartpole.toml of the checkout; anything that ends in .toml is a path itself.

    Raises UserError where there is no such file.
    """
    path = Path(name) if name.endswith(".toml") else _CONF / f"{name}.toml"
    if not path.is_file():
        raise UserError("benchmark --config", str(path), "a TOML file, or the name of a preset in conf/ of a checkout",
                        "give the file's path")  # fmt: skip
    return path.resolve()


def preset(name: str, *overrides: str) -> RunConfig:
    """Its config, with `SECTION.KEY=VALUE` put in place. Raises UserError."""
    return load_config(preset_file(name), overrides)
