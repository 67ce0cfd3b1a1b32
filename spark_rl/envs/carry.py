"""How a run's environments go on from one task to the next: chosen once, by proof.

"snapshot"  their state round-trips exactly: shown by stepping an environment and its restored copy side by side.
"replay"    a fresh environment reset with the episode's seed and given the same actions does the same: shown likewise.
"cut"       neither; episodes end at the iteration's boundary with end_reason = 'cut' and are bootstrapped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from spark_rl import seeding
from spark_rl.envs.group import Group, SyncGroup, make_group
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
    if spec.vectorization == "native":
        return _choose(spec, True, carry)
    if native and carry == "cut":
        return _choose(spec, True, carry)
    if native and carry != "replay":  # which only single environments can do
        # Going on matters more than native speed: an episode cut at every iteration may never see its end.
        chosen = _choose(spec, True, "auto")
        if chosen.carry == "snapshot":
            return chosen
    return _choose(spec, False, carry)


def _choose(spec: EnvSpec, native: bool, wanted: str) -> EnvPlan:
    def make() -> Group:
        return make_group(spec, native=native, seed=0, stream=seeding.PROBE, first_env=0, num_envs=_PROOF_ENVS)

    group = make()
    found = EnvPlan(spec=spec, native=native, carry="cut", reason="[env] carry = 'cut'",
                    observation=group.observation_space, action=group.action_space)  # fmt: skip
    group.close()
    if wanted == "cut":
        return found
    reasons: list[str] = []
    for method, proof in (("snapshot", _snapshot_proof), ("replay", _replay_proof)):
        if wanted not in ("auto", method):
            continue
        problem = proof(make)
        if not problem:
            return replace(found, carry=method, reason="; ".join(reasons))
        reasons.append(f"no {method}: {problem}")
    if wanted != "auto":
        raise UserError(where="[env] carry", got=f"{wanted!r} for {spec.id}, but {reasons[0]}",
                        wanted="a method that can be shown to work", todo="use 'auto'")  # fmt: skip
    return replace(found, reason="; ".join(reasons))


def _snapshot_proof(make: Callable[[], Group]) -> str:
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
            carried = original.carry(with_state=True)
            carried.tree = json.loads(json.dumps(carried.tree))  # as it will be stored
            copy.resume(carried)
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


def _replay_proof(make: Callable[[], Group]) -> str:
    """'' if a fresh environment that lives only the current episode again does what the original does."""
    original, copy = make(), make()
    if not (isinstance(original, SyncGroup) and isinstance(copy, SyncGroup)):
        return "a vector environment draws its resets from one generator"
    actions = seeding.generator(0, seeding.PROBE, 0)
    original.start(0)
    lived: list[list[np.ndarray]] = [[] for _ in range(original.num_envs)]
    for lead in _LEAD_STEPS:
        for i in range(original.num_envs):  # at least one episode before the one that is replayed: it may leave a trace
            original.reset(i)
            lived[i].clear()
        for _ in range(lead):
            action = _random_action(original.action_space.only, original.num_envs, actions)
            over = original.step(action).ended
            for i, past in enumerate(lived):
                past.append(action[i])
                if over is not None and i in over:
                    past.clear()
    copy.episode = original.episode - 1
    for i, past in enumerate(lived):
        copy.reset(i)
        for one in past:
            copy.advance(i, one)
    same = all(np.array_equal(original.observation[name], copy.observation[name]) for name in copy.observation)
    difference = _first_difference(original, copy, actions) if same else 0
    original.close()
    copy.close()
    if not same:
        return "an episode lived again from its seed and its actions came out differently"
    return (
        f"an episode lived again from its seed and its actions differed {difference} steps later" if difference else ""
    )


def _first_difference(one: Group, other: Group, actions: np.random.Generator) -> int:
    """The first step (from 1) at which two groups given the same actions differ; 0 if none does."""
    for step in range(1, _PROOF_STEPS + 1):
        if step == _PROOF_STEPS // 2 and isinstance(one, SyncGroup) and isinstance(other, SyncGroup):
            one.reset(0)  # long episodes would not end within the proof, and what a reset uses is state too
            other.reset(0)
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
