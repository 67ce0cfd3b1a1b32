"""Environments from plain data, and one clear line where that fails."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import toys
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode
from helpers import env_spec

from spark_rl.envs import make
from spark_rl.envs.make import autoreset_mode, has_native_vector, make_native, make_single
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import UserError


def test_an_entry_point_with_arguments() -> None:
    env = make_single(env_spec("toys:AnySpace", space="image", action="box"))
    assert isinstance(env, toys.AnySpace)
    assert env.observation_space == toys.AnySpace.SPACES["image"]


def test_a_registered_id_after_its_module_was_imported() -> None:
    env = make_single(env_spec("toys:toys/Scripted-v0"))
    assert isinstance(env.unwrapped, toys.Scripted)
    assert isinstance(env, gymnasium.wrappers.TimeLimit)


@pytest.mark.parametrize("env_id", ["toys:Scripted", "toys:toys/Scripted-v0", "CartPole-v1"])
def test_the_time_limit_of_the_config_holds(env_id: str) -> None:
    env = make_single(env_spec(env_id, max_episode_steps=2))
    for seed in range(20):
        env.reset(seed=seed)
        ends = [env.step(1)[2:4] for _ in range(2)]
        if ends[0] == (False, False):
            assert ends[1][1] or ends[1][0]
    vector = make_native(env_spec("CartPole-v1", max_episode_steps=2), 3)
    vector.reset(seed=0)
    assert not vector.step(vector.action_space.sample())[3].any()
    assert vector.step(vector.action_space.sample())[3].all()


def test_wrappers_are_applied_from_the_inside_out_with_their_arguments() -> None:
    twice = ("toys:Offset", {"by": 10.0})
    env: Any = make_single(env_spec("toys:Scripted", twice, ("gymnasium.wrappers:TimeLimit", {"max_episode_steps": 3})))
    assert isinstance(env, gymnasium.wrappers.TimeLimit)
    assert isinstance(env.env, toys.Offset)
    plain = make_single(env_spec("toys:Scripted"))
    env.reset(seed=4)
    plain.reset(seed=4)
    assert env.step(1)[1] == plain.step(1)[1] + 10.0


def test_which_environments_are_native() -> None:
    assert has_native_vector(env_spec("CartPole-v1"))
    assert not has_native_vector(env_spec("CartPole-v1", vectorization="sync"))
    assert not has_native_vector(env_spec("CartPole-v1", ("toys:Offset", {})))
    assert not has_native_vector(env_spec("Pendulum-v1"))
    assert not has_native_vector(env_spec("toys:Scripted"))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_autoreset_mode_is_what_the_environment_says(mode: AutoresetMode) -> None:
    env = make_native(env_spec(f"toys:toys/{mode.name}-v0"), 2)
    assert autoreset_mode(env) is mode
    env.metadata = {}
    assert autoreset_mode(env) is AutoresetMode.NEXT_STEP


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (env_spec("CartPol-v1"), r"environment CartPol-v1: got .*Did you mean.*`?CartPole"),
        (env_spec("CartPole-v99"), r"environment CartPole-v99: got .*version"),
        (env_spec("no_such_module:X"), r"environment no_such_module:X: got No module named 'no_such_module'"),
        (env_spec("toys:NoSuchClass"), r"\[env\] id: got 'toys:NoSuchClass' \(.*no attribute"),
        (env_spec("toys:Scripted", nonsense=1), r"environment toys:Scripted: got .*nonsense"),
        (env_spec("CartPole-v1", nonsense=1), r"environment CartPole-v1: got .*nonsense"),
        (env_spec("CartPole-v1", ("toys:NoWrapper", {})), r"\[env\] wrappers: got 'toys:NoWrapper'"),
        (env_spec("CartPole-v1", ("toys:Offset", {"wrong": 1})), r"environment CartPole-v1: got .*wrong"),
    ],
    ids=lambda value: value.id if isinstance(value, EnvSpec) else "",
)
def test_what_cannot_be_made_is_one_line_for_the_user(spec: EnvSpec, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        make_single(spec)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_module_that_fails_while_it_is_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_written.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="environment half_written:Env: got .*invalid syntax"):
        make_single(env_spec("half_written:Env"))


def block(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these modules were not installed: None in sys.modules makes their import fail."""
    for loaded in [name for name in sys.modules if name.partition(".")[0] in names]:
        monkeypatch.delitem(sys.modules, loaded)
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("env", "modules", "forget", "extra"),
    [
        (env_spec("ALE/Pong-v5"), ("ale_py",), (), "atari"),
        (env_spec("LunarLander-v3"), ("Box2D",), ("gymnasium.envs.box2d",), "box2d"),
        (env_spec("HalfCheetah-v5"), ("mujoco",), ("gymnasium.envs.mujoco",), "mujoco"),
    ],
    ids=lambda value: value.id if isinstance(value, EnvSpec) else "",
)
def test_a_missing_package_names_the_extra_that_brings_it(
    env: EnvSpec, modules: tuple[str, ...], forget: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [name for name in sys.modules if name.startswith(forget)] if forget else []:
        monkeypatch.delitem(sys.modules, loaded)
    block(monkeypatch, *modules)
    with pytest.raises(UserError, match=rf"wanted the extra '{extra}'; pip install 'spark-rl\[{extra}\]'"):
        make_single(env)


def test_opencv_is_part_of_the_atari_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py")
    block(monkeypatch, "cv2")
    with pytest.raises(UserError, match=r"cv2.*wanted the extra 'atari'"):
        make_single(env_spec("ALE/Pong-v5", ("gymnasium.wrappers:AtariPreprocessing", {}), frameskip=1))


def test_older_gymnasium_says_in_words_only_what_is_missing() -> None:
    error = DependencyNotInstalled('opencv-python package not installed, run `pip install "gymnasium[other]"`')
    assert "wanted the extra 'atari'" in str(make._explain(env_spec("ALE/Pong-v5"), error))


def test_the_extras_that_messages_name_exist() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(make._EXTRAS.values()) | set(make._WORDS.values()) <= set(project["optional-dependencies"])
