"""Build environments from their spec, and say in one line what is missing when that fails."""

from __future__ import annotations

import importlib
import json
from typing import Any

import gymnasium
from gymnasium.envs.registration import registry
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode, VectorEnv

from spark_rl.envs.spec import EnvSpec, WrapperSpec
from spark_rl.errors import UserError

# Third-party modules whose absence an extra of ours mends.
_EXTRAS = {"ale_py": "atari", "cv2": "atari", "Box2D": "box2d", "box2d": "box2d", "mujoco": "mujoco",
           "imageio": "mujoco", "pygame": "box2d"}  # fmt: skip
_WORDS = {"opencv": "atari", "mujoco": "mujoco", "Box2D": "box2d", "ale": "atari"}


def has_native_vector(spec: EnvSpec) -> bool:
    """Whether the environment brings a vector implementation of its own that this spec can use."""
    if spec.vectorization == "sync" or spec.wrappers:
        return False
    return _registered(spec) is not None and _registered(spec).vector_entry_point is not None


def make_single(spec: EnvSpec) -> gymnasium.Env[Any, Any]:
    """One environment with its wrappers. Raises UserError for an unknown id, a missing package, refused arguments."""
    limit = {"max_episode_steps": spec.max_episode_steps} if spec.max_episode_steps else {}
    try:
        if _registered(spec) is not None:
            # Our own recorder checks what the environment returns; gymnasium's checker would do so again at each step.
            env = gymnasium.make(_bare_id(spec), disable_env_checker=True, **limit, **spec.arguments())
        else:
            env = _entry_point(spec)(**spec.arguments())
            if limit:
                env = gymnasium.wrappers.TimeLimit(env, **limit)
        for wrapper in spec.wrappers:
            env = _attribute(wrapper.entry_point, "[env] wrappers")(env, **_kwargs(wrapper))
    except UserError:
        raise
    except Exception as error:
        raise _explain(spec, error) from error
    return env


def make_native(spec: EnvSpec, num_envs: int) -> VectorEnv[Any, Any, Any]:
    """The environment's own vector implementation. Raises UserError as `make_single` does."""
    arguments = spec.arguments()
    if spec.max_episode_steps:
        arguments["max_episode_steps"] = spec.max_episode_steps
    try:
        return gymnasium.make_vec(_bare_id(spec), num_envs, vectorization_mode="vector_entry_point", **arguments)
    except Exception as error:
        raise _explain(spec, error) from error


def autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """What the vector environment does when one of its environments ends. Gymnasium's default is NEXT_STEP."""
    return AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))


def _kwargs(wrapper: WrapperSpec) -> dict[str, Any]:
    return dict(json.loads(wrapper.kwargs))


def _bare_id(spec: EnvSpec) -> str:
    return spec.id.rpartition(":")[2]


def _registered(spec: EnvSpec) -> Any:
    """The gymnasium registration, after importing what registers it; None for "module:Class"."""
    module, _, name = spec.id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        elif name.startswith("ALE/"):
            gymnasium.register_envs(importlib.import_module("ale_py"))
    except Exception as error:  # a module can fail in any way while it is imported
        raise _explain(spec, error) from error
    if name in registry:
        return registry[name]
    if module:
        return None
    try:
        return gymnasium.spec(name)  # raises with the near misses that gymnasium knows
    except gymnasium.error.Error as error:
        raise _explain(spec, error) from error


def _entry_point(spec: EnvSpec) -> Any:
    return _attribute(spec.id, "[env] id")


def _attribute(entry_point: str, where: str) -> Any:
    module, _, name = entry_point.rpartition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a module can fail in any way while it is imported
        raise UserError(
            where=where, got=f"{entry_point!r} ({error})", wanted='"module:Name" that Python can import',
            todo="check the spelling, and that the module is installed on the executors too",
        ) from error  # fmt: skip


def _explain(spec: EnvSpec, error: Exception) -> UserError:
    cause: BaseException | None = error
    while cause is not None:
        missing = getattr(cause, "name", None) if isinstance(cause, ImportError) else None
        if missing and missing.partition(".")[0] in _EXTRAS:
            return _missing(spec, f"no module {missing!r}", _EXTRAS[missing.partition(".")[0]])
        cause = cause.__cause__ or cause.__context__
    # gymnasium tells some missing packages in words only.
    named = [
        extra for word, extra in _WORDS.items() if isinstance(error, DependencyNotInstalled) and word in str(error)
    ]
    if named:
        return _missing(spec, " ".join(str(error).split()), named[0])
    return UserError(
        where=f"environment {spec.id}", got=" ".join(str(error).split()) or type(error).__name__,
        wanted="an environment that gymnasium can make",
        todo='check [env] id (a registered id, "module:EnvId" or "module:Class") and [env] kwargs',
    )  # fmt: skip


def _missing(spec: EnvSpec, got: str, extra: str) -> UserError:
    return UserError(
        where=f"environment {spec.id}", got=got, wanted=f"the extra {extra!r}",
        todo=f"pip install 'spark-rl[{extra}]' on the driver and on the executors",
    )  # fmt: skip
