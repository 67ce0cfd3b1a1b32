"""How a run's environments go on from one task to the next: chosen once, by proof.

"snapshot"  their state round-trips exactly: shown by stepping an environment and its restored copy side by side.
"replay"    a fresh environment reset with the episode's seed and given the same actions does the same: shown likewise.
"cut"       neither; episodes end at the iteration's boundary with end_reason = 'cut' and are bootstrapped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from spark_rl import seeding
from spark_rl.envs.group import Group, make_group
from spark_rl.envs.make import has_native_vector
from spark_rl.envs.spec import EnvSpec
from spark_rl.envs.state import NotCapturable
from spark_rl.errors import UserError
from spark_rl.schema.spaces import Leaf, SpaceSpec

METHODS = ("snapshot", "replay", "cut")
# Two captures, one early and one after many steps; then enough steps side by side to cross episode ends.
_LEAD_STEPS = (7, 83)
_PROOF_STEPS = 160
_PROOF_ENVS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvPlan:
    """How the environments of a run are built and carried, and what their spaces are. Stored in run.json."""

    spec: EnvSpec
    native: bool
    carry: str
    reason: str  # why nothing better than `carry` was possible; "" for a snapshot
    observation: SpaceSpec
    action: SpaceSpec


def plan(spec: EnvSpec, *, carry: str = "auto") -> EnvPlan:
    """Look at the environment and choose. `carry` other than "auto" is taken if it is proved to work, else refused.

    Raises UserError for an environment or space that cannot be used.
    """
    native = has_native_vector(spec)
    if spec.vectorization == "native" and not native:
        raise UserError(
            where="[env] vectorization", got=f"'native' for {spec.id}",
            wanted="an environment with a vector_entry_point, and no wrappers", todo="use 'auto' or 'sync'",
        )  # fmt: skip
    if native:
        chosen = _choose(spec, True, carry)
        # Going on matters more than native speed: an episode cut at every iteration may never see its end.
        if spec.vectorization == "native" or chosen.carry == "snapshot":
            return chosen
    return _choose(spec, False, carry)


def _choose(spec: EnvSpec, native: bool, wanted: str) -> EnvPlan:
    group = make_group(spec, native=native, seed=0, stream=seeding.PROBE, first_env=0, num_envs=_PROOF_ENVS)
    found = EnvPlan(spec=spec, native=native, carry="cut", reason="[env] carry = 'cut'",
                    observation=group.observation_space, action=group.action_space)  # fmt: skip
    if wanted == "cut":
        return found
    reasons = []
    for method, proof in (("snapshot", _snapshot_proof), ("replay", _replay_proof)):
        if wanted not in ("auto", method):
            continue
        problem = proof(lambda: make_group(spec, native=native, seed=0, stream=seeding.PROBE, first_env=0,
                                           num_envs=_PROOF_ENVS), native)  # fmt: skip
        if not problem:
            return replace(found, carry=method, reason="; ".join(reasons))
        reasons.append(f"no {method}: {problem}")
    if wanted != "auto":
        raise UserError(where="[env] carry", got=f"{wanted!r} for {spec.id}, but {reasons[0]}",
                        wanted="a method that can be shown to work", todo="use 'auto'")  # fmt: skip
    return replace(found, reason="; ".join(reasons))


def _snapshot_proof(make: Callable[[], Group], native: bool) -> str:
    """'' if a restored copy does what the original does, else what went wrong."""
    original = make()
    original.start(0)
    for round_, lead in enumerate(_LEAD_STEPS):
        actions = seeding.generator(0, seeding.PROBE, round_)
        for _ in range(lead):
            original.step(_random_action(original.action_space.only, original.num_envs, actions))
        copy = make()
        copy.start(0)
        try:
            copy.resume(original.carry(with_state=True))
        except NotCapturable as error:
            return str(error)
        except Exception as error:  # whatever a foreign object does on restore, the answer is the same: not this way
            return f"restoring raised {type(error).__name__}: {error}"
        difference = _first_difference(original, copy, actions)
        copy.close()
        if difference:
            return f"a restored copy differed at step {difference}"
    original.close()
    return ""


def _replay_proof(make: Callable[[], Group], native: bool) -> str:
    if native:
        return "a vector environment draws its resets from one generator"
    first, second = make(), make()
    first.start(0)
    second.start(0)
    difference = _first_difference(first, second, seeding.generator(0, seeding.PROBE, 0))
    first.close()
    second.close()
    return f"two environments with one seed and the same actions differed at step {difference}" if difference else ""


def _first_difference(one: Group, other: Group, actions: np.random.Generator) -> int:
    """The first step (from 1) at which two groups given the same actions differ; 0 if none does."""
    for step in range(1, _PROOF_STEPS + 1):
        action = _random_action(one.action_space.only, one.num_envs, actions)
        a, b = one.step(action), other.step(action)
        same = all(np.array_equal(one.observation[name], other.observation[name]) for name in one.observation)
        same &= np.array_equal(a.reward, b.reward) and np.array_equal(a.terminated, b.terminated)
        if not (same and np.array_equal(a.truncated, b.truncated)):
            return step
    return 0


def _random_action(leaf: Leaf, num_envs: int, generator: np.random.Generator) -> np.ndarray:
    """Uniform actions [N, *shape]; standard normal where a box has no bounds."""
    if leaf.kind == "box":
        low, high = (np.resize(np.array(bound), leaf.size).reshape(leaf.shape) for bound in (leaf.low, leaf.high))
        finite = np.isfinite(low) & np.isfinite(high)
        uniform = generator.uniform(np.where(finite, low, -1), np.where(finite, high, 1), (num_envs, *leaf.shape))
        return uniform.astype(leaf.dtype)
    start, n = (np.array(values, np.int64).reshape(leaf.shape) for values in (leaf.start, leaf.n))
    return start + generator.integers(0, n, (num_envs, *leaf.shape))
