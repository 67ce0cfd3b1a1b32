"""How environments are carried: what the proof finds for each kind, and that it cannot be fooled."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest
import toys
from helpers import env_spec

from spark_rl import seeding
from spark_rl.envs import carry
from spark_rl.envs.carry import plan
from spark_rl.envs.group import SyncGroup, make_group
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import UserError

STACK = ("gymnasium.wrappers:FrameStackObservation", {"stack_size": 3})
STATISTICS = ("gymnasium.wrappers:NormalizeObservation", {})
RECORD = ("gymnasium.wrappers:RecordEpisodeStatistics", {})


@pytest.mark.parametrize(
    ("env", "native", "method"),
    [
        (env_spec("CartPole-v1"), True, "snapshot"),
        (env_spec("CartPole-v1", vectorization="sync"), False, "snapshot"),
        (env_spec("CartPole-v1", RECORD), False, "snapshot"),
        (env_spec("Pendulum-v1"), False, "snapshot"),
        (env_spec("Acrobot-v1"), False, "snapshot"),
        (env_spec("FrozenLake-v1"), False, "snapshot"),
        (env_spec("Blackjack-v1"), False, "snapshot"),
        (env_spec("MountainCar-v0", STACK, STATISTICS, RECORD), False, "snapshot"),
        (env_spec("toys:Scripted"), False, "snapshot"),
        (env_spec("toys:toys/NEXT_STEP-v0"), True, "snapshot"),
    ],
    ids=lambda value: value.id if isinstance(value, EnvSpec) else str(value),
)
def test_plain_python_environments_are_carried_by_their_state(env: EnvSpec, native: bool, method: str) -> None:
    found = plan(env)
    assert (found.native, found.carry, found.reason) == (native, method, "")


def test_box2d_is_replayed_because_its_world_is_out_of_reach() -> None:
    pytest.importorskip("Box2D")
    found = plan(env_spec("LunarLander-v3"))
    assert found.carry == "replay"
    assert "no snapshot" in found.reason
    assert "Swig" in found.reason


def test_statistics_over_episodes_cannot_be_replayed_from_one_episode() -> None:
    pytest.importorskip("Box2D")
    found = plan(env_spec("LunarLander-v3", STATISTICS))
    assert found.carry == "cut"
    assert "no replay: an episode lived again" in found.reason


def test_what_outlives_episodes_is_noticed_even_where_none_ends_within_the_proof() -> None:
    """Pendulum's episodes have 200 steps; so the proof resets by itself."""
    with pytest.raises(UserError, match="no replay: an episode lived again"):
        plan(env_spec("Pendulum-v1", STATISTICS), carry="replay")


def test_mujoco_is_carried_by_its_own_state() -> None:
    pytest.importorskip("mujoco")
    assert plan(env_spec("HalfCheetah-v5")).carry == "snapshot"


@pytest.mark.parametrize("noop_max", [0, 30])  # random no-ops at the start move the sticky action, nothing else
def test_ale_is_carried_by_its_own_state_unless_actions_are_sticky(
    noop_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every reset loads the ROM again, 0.1 s each.
    monkeypatch.setattr(carry, "_PROOF_ENVS", 1)
    monkeypatch.setattr(carry, "_PROOF_STEPS", 40)
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    atari = ("gymnasium.wrappers:AtariPreprocessing", {"noop_max": noop_max})
    exact = plan(env_spec("ALE/Pong-v5", atari, frameskip=1, repeat_action_probability=0.0))
    assert (exact.carry, exact.reason) == ("snapshot", "")
    sticky = plan(env_spec("ALE/Pong-v5", atari, frameskip=1), carry="auto")
    assert sticky.carry == "replay"
    assert "sticky actions" in sticky.reason


def test_ale_leaves_the_action_before_out_of_its_state() -> None:
    """Why sticky actions refuse a snapshot. If this fails, ALE has learned to save it, and the refusal can go."""
    ale_py = pytest.importorskip("ale_py")
    one, other = (ale_py.ALEInterface() for _ in range(2))
    for ale in (one, other):
        ale.setInt("random_seed", 0)
        ale.setFloat("repeat_action_probability", 0.9)
        ale.loadROM(ale_py.roms.get_rom_path("pong"))
    for t in range(100):
        one.act(3 if t % 40 < 20 else 4)  # right and left, as Pong calls up and down
    other.restoreState(ale_py.ALEState(one.cloneState(include_rng=True).serialize()))
    np.testing.assert_array_equal(one.getRAM(), other.getRAM())
    one.act(0)
    other.act(0)
    assert not np.array_equal(one.getRAM(), other.getRAM())  # one repeated its last action, the other its own


def test_what_is_not_deterministic_is_cut_and_the_reason_says_why() -> None:
    found = plan(env_spec("toys:Random"))
    assert found.carry == "cut"
    assert "no snapshot: a restored copy differed at step 1" in found.reason
    assert "no replay" in found.reason


@pytest.mark.parametrize("method", ["snapshot", "replay"])
def test_a_method_that_is_asked_for_has_to_work(method: str) -> None:
    assert plan(env_spec("toys:Scripted"), carry=method).carry == method
    with pytest.raises(UserError, match=rf"carry: got '{method}' for toys:Random, but no {method}"):
        plan(env_spec("toys:Random"), carry=method)


@pytest.mark.parametrize(("method", "native"), [("snapshot", True), ("replay", False), ("cut", True)])
def test_auto_takes_the_vector_environment_where_the_method_allows_it(method: str, native: bool) -> None:
    found = plan(env_spec("CartPole-v1"), carry=method)
    assert (found.carry, found.native) == (method, native)


def test_native_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="'native' for Acrobot-v1; wanted an environment with a vector_entry_point"):
        plan(env_spec("Acrobot-v1", vectorization="native"))
    with pytest.raises(UserError, match="but no replay: a vector environment draws its resets"):
        plan(env_spec("CartPole-v1", vectorization="native"), carry="replay")


class Careless(toys.Scripted):
    """Forgets on restore: a part of its state lives outside the object."""

    hidden: ClassVar[dict[int, int]] = {}

    def look(self) -> np.ndarray:
        self.hidden[id(self)] = self.hidden.get(id(self), 0) + 1
        return super().look() + np.float32(self.hidden[id(self)])


def test_state_outside_the_object_is_noticed_by_stepping() -> None:
    Careless.hidden.clear()
    found = plan(env_spec("test_carry:Careless"))
    assert found.carry == "cut"


def test_the_proof_goes_over_an_end_of_every_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reset reads is state too: a copy whose first difference is its next reset is found."""
    found = SyncGroup.resume

    def forgetful(self: SyncGroup, carried: Any) -> None:
        found(self, carried)
        self._seed += 1  # resets go elsewhere from now on

    monkeypatch.setattr(SyncGroup, "resume", forgetful)
    assert plan(env_spec("Pendulum-v1")).carry == "replay"  # whose episodes last 200 steps, more than the proof


@pytest.mark.parametrize(
    "env", [env_spec("CartPole-v1"), env_spec("Pendulum-v1", STACK, RECORD)], ids=["native", "sync"]
)
def test_a_capture_has_the_same_bytes_from_the_original_and_from_its_copy(env: EnvSpec) -> None:
    found = plan(env)

    def make() -> Any:
        return make_group(env, native=found.native, seed=3, stream=seeding.ENVIRONMENT, first_env=4, num_envs=2)

    original, copy = make(), make()
    original.start(0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        original.step(carry._random_action(found.action.only, 2, rng))
    taken = original.carry(with_state=True)
    copy.resume(taken)
    again = copy.carry(with_state=True)
    assert json.dumps(again.tree) == json.dumps(taken.tree)
    assert again.arrays.keys() == taken.arrays.keys()
    for name, array in taken.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
