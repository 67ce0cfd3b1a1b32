"""What a run is: one frozen RunConfig, made from a TOML file and `--set` overrides, checked key by key.

Nothing is ignored and nothing is coerced (an int where a float is wanted is the one exception): an unknown key, a wrong
type and a number out of range each raise a UserError that names the key, the value and what was wanted. Numbers that
follow from others are properties. The file is stored with its run, so secrets do not belong in it (see redaction).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from spark_rl import registry
from spark_rl.config_input import check_section, read_toml, set_values
from spark_rl.errors import UserError
from spark_rl.redaction import redact


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # TOML has arrays; strict mode wants the tuple itself


PositiveInt = Annotated[int, Field(ge=1)]
Kwargs = dict[str, JsonValue]
Sizes = Annotated[tuple[PositiveInt, ...], BeforeValidator(_as_tuple)]


class Section(BaseModel):
    """A table of the file: frozen, nothing unknown, nothing coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Run(Section):
    """[run] how much, and from which seed."""

    seed: int = Field(0, ge=0, lt=2**63)  # with the rest of the config it decides every row and every weight
    env_steps: PositiveInt = 100_000  # budget; the run does as many whole iterations as fit


class Wrapper(Section):
    """One of [[env.wrappers]], applied in the order of the file, the first one innermost."""

    entry_point: str = Field(pattern=r"^[\w.]+:\w+$")  # "module:Class"
    kwargs: Kwargs = {}


class Env(Section):
    """[env] a gymnasium environment."""

    id: str = Field(min_length=1)  # "CartPole-v1", or "module:EnvId-v0" to import the module first
    kwargs: Kwargs = {}
    wrappers: Annotated[tuple[Wrapper, ...], BeforeValidator(_as_tuple)] = ()
    vectorization: Literal["auto", "native", "sync"] = "auto"  # auto: native where the environment has one
    max_episode_steps: PositiveInt | None = None  # time limit in env steps; None: the environment's own
    # How unfinished episodes go on in the next iteration; auto: the best that is proved to work (see envs.carry).
    carry: Literal["auto", "snapshot", "replay", "cut"] = "auto"


class Rollout(Section):
    """[rollout] the experience of one iteration. Groups are fixed for a run; executors only decide where they step."""

    num_groups: PositiveInt = 2  # Spark tasks an iteration
    envs_per_group: PositiveInt = 16
    steps_per_env: PositiveInt = 64  # env steps an iteration
    deadline_s: float = Field(600.0, gt=0)  # a step batch that takes longer counts as a hung environment
    pipelined: bool = False  # collect the next iteration while learning on this one; exactly one version of lag


class Policy(Section):
    """[policy] the function that acts."""

    network: Literal["auto", "mlp", "nature_cnn"] = "auto"  # auto: nature_cnn for uint8 images, else mlp
    hidden: Sizes = (64, 64)  # units a layer, actor and critic alike
    activation: Literal["tanh", "relu"] = "tanh"
    normalize_observation: bool = False  # running mean and variance; they travel with the weights
    log_std_init: float = 0.0  # natural log of the initial standard deviation, box actions only
    recurrent: Literal["", "lstm", "gru"] = ""  # a memory after the layers; actor and critic then share both
    recurrent_size: PositiveInt = 64  # units of the memory
    # Which choices are allowed: "info" takes info["action_mask"]; "off"; or a key of a Dict observation. auto: the key
    # "action_mask" where the observation has it.
    action_mask: str = "auto"


class Learner(Section):
    """[learner] where and how the update runs."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")  # auto: a GPU where there is one
    num_threads: PositiveInt = 1  # torch threads; more than one may change the last bits of the weights
    mixed_precision: Literal["auto", "off", "bfloat16"] = "auto"  # auto: bfloat16 for CNNs on CUDA


class Evaluation(Section):
    """[evaluation] greedy episodes on the executors."""

    every: int = Field(0, ge=0)  # iterations; 0: only at the end
    episodes: PositiveInt = 100
    stop_at_return: float | None = None  # end the run once an evaluation's mean return reaches it


class Store(Section):
    """[store] the files."""

    compression: Literal["zstd", "snappy", "lz4", "gzip", "none"] = "zstd"
    keep_iterations: int = Field(0, ge=0)  # transitions of older iterations are dropped; 0: keep all


_SECTIONS: dict[str, type[Section]] = {
    "run": Run,
    "env": Env,
    "rollout": Rollout,
    "policy": Policy,
    "learner": Learner,
    "evaluation": Evaluation,
    "store": Store,
}


class RunConfig(Section):
    """Everything that decides a run's rows and weights. `algorithm` is the Config model of the named algorithm."""

    run: Run
    env: Env
    rollout: Rollout
    policy: Policy
    learner: Learner
    evaluation: Evaluation
    store: Store
    algorithm_name: str
    algorithm: BaseModel

    @property
    def num_envs(self) -> int:
        return self.rollout.num_groups * self.rollout.envs_per_group

    @property
    def rows_per_iteration(self) -> int:
        """Env steps that one iteration plans: groups × environments × steps."""
        return self.num_envs * self.rollout.steps_per_env

    @property
    def num_iterations(self) -> int:
        """Whole iterations within run.env_steps; at least 1, or the config would not exist."""
        return self.run.env_steps // self.rows_per_iteration

    def to_dict(self) -> dict[str, Any]:
        """The TOML file that would give this config, every default spelled out: JSON values only."""
        tables: dict[str, Any] = {name: getattr(self, name).model_dump(mode="json") for name in _SECTIONS}
        return tables | {"algorithm": {"name": self.algorithm_name} | self.algorithm.model_dump(mode="json")}

    def to_public_dict(self) -> dict[str, Any]:
        """`to_dict` without what looks like a credential: the form that is written down."""
        return redact(self.to_dict())

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], where: str = "config") -> RunConfig:
        """The config of nested tables as in the TOML file; `where` begins every complaint. Raises UserError."""
        check_section(where, "", tables, [*_SECTIONS, "algorithm"])
        sections = {name: check_section(where, name, tables.get(name, {}), model) for name, model in _SECTIONS.items()}
        algorithm = tables.get("algorithm", {})
        check_section(where, "algorithm", algorithm, None)
        name = algorithm.get("name", "ppo")
        model = registry.config_model(name)
        own = {key: value for key, value in algorithm.items() if key != "name" or "name" in model.model_fields}
        config = cls(**sections, algorithm_name=name, algorithm=check_section(where, "algorithm", own, model))
        if config.num_iterations < 1:
            plan, size = config.rollout, config.rows_per_iteration
            raise UserError(
                f"{where} [run] env_steps",
                f"{config.run.env_steps:,}",
                f"at least one iteration of {size:,} env steps ({plan.num_groups} groups x {plan.envs_per_group} "
                f"environments x {plan.steps_per_env} steps)",
                "raise run.env_steps or lower rollout.steps_per_env",
            )
        return config

    @property
    def sha256(self) -> str:
        """Identity of the config: of its public form, so that a stored config has the hash of the one it came from."""
        text = json.dumps(self.to_public_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a TOML file, with each `SECTION.KEY=VALUE` of `overrides` put in its place. Raises UserError."""
    return RunConfig.from_dict(set_values(read_toml(path), overrides), str(path))


def difference(stored: RunConfig | Mapping[str, Any], asked: RunConfig | Mapping[str, Any]) -> list[str]:
    """The keys that differ, as `rollout.num_groups: 2 -> 4`, in order of name; empty when the two are the same run.

    Takes configs or the dicts of `to_dict` and `to_public_dict`; credentials are not compared.
    """
    before, after = (
        dict(_leaves("", redact(c.to_dict() if isinstance(c, RunConfig) else dict(c)))) for c in (stored, asked)
    )
    absent = "(absent)"
    show = {key: (before.get(key, absent), after.get(key, absent)) for key in sorted(before.keys() | after.keys())}
    return [f"{key}: {old} -> {new}" for key, (old, new) in show.items() if old != new]


def _leaves(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{prefix}.{key}" if prefix else key, inner)]
    return [(prefix, json.dumps(value))]
