"""Bad input, as a person would type it: one line on stderr, exit code 2, nothing left behind, and no Spark started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from spark_rl.cli import main

ROOT = Path(__file__).parents[2]
PRESET = str(ROOT / "conf" / "ppo_cartpole.toml")
TINY = [
    "rollout.num_groups=1", "rollout.envs_per_group=2", "rollout.steps_per_env=8", "run.env_steps=32",
    "algorithm.minibatch_size=8", "algorithm.num_epochs=1", "evaluation.episodes=1",
]  # fmt: skip

CUSTOM = """
import gymnasium

class Texts(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict({"words": gymnasium.spaces.Text(5), "x": gymnasium.spaces.Discrete(3)})
    action_space = gymnasium.spaces.Discrete(2)

class Pairs(gymnasium.Env):
    observation_space = gymnasium.spaces.Discrete(3)
    action_space = gymnasium.spaces.Tuple((gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(2)))

class Refuses(gymnasium.Env):
    def __init__(self, size):
        raise ValueError(f"size {size} is too small")
"""


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`told(words...)`: the one line that a command ends with, after checking that it is one and the code is 2.

    Everything but Spark is real; what is wrong here is found before Spark is needed, or without it.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_envs.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(str(tmp_path))
    for verb in ("train", "evaluate"):
        monkeypatch.setattr(sys.modules[f"spark_rl.cli.{verb}"], "session", lambda *words: nullcontext(None))

    def command(*words: str, code: int = 2) -> str:
        capsys.readouterr()
        got = main(list(words))
        out, err = capsys.readouterr()
        assert got == code, err
        if code:
            assert out == ""
            assert err.count("\n") == 1, err
            assert err.startswith("spark-rl: ")
        return err.removeprefix("spark-rl: ").rstrip("\n")

    return command


def train(*overrides: str, run: str = "run") -> list[str]:
    words = [word for override in (*TINY, *overrides) for word in ("--set", override)]
    return ["train", PRESET, "--run", run, *words]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("rollout.step_per_env=8", ["[rollout]", "'step_per_env'", "did you mean 'steps_per_env'?"]),
        ("rolout.num_groups=8", ["'rolout'", "did you mean 'rollout'?"]),
        ("algorithm.learning_rat=0.1", ["[algorithm]", "'learning_rat'", "did you mean 'learning_rate'?"]),
        ("rollout.num_groups=many", ["[rollout] num_groups", "'many'", "integer"]),
        ("rollout.num_groups=2.5", ["[rollout] num_groups", "2.5", "integer"]),
        ("algorithm.discount=1.5", ["[algorithm] discount", "1.5", "1"]),
        ("rollout.num_groups=0", ["[rollout] num_groups", "0", "greater than or equal to 1"]),
        ("rollout.deadline_s=-1", ["[rollout] deadline_s", "-1"]),
        ("learner.device=tpu", ["[learner] device", "'tpu'"]),
        ("algorithm.name=pppo", ["'pppo'", "ppo"]),
        ("run.env_steps=3", ["[run] env_steps", "at least one iteration of 16 env steps"]),
        ("policy.hidden=64", ["[policy] hidden", "64", "an array"]),
        ("env.id=CartPoole-v1", ["environment CartPoole-v1", "CartPole"]),
        ("env.id=no_such_module:Env-v0", ["no_such_module"]),
        ("env.id=my_envs:Nothing", ["my_envs:Nothing"]),
        ("env.id=my_envs:Texts", ["my_envs:Texts", "Text", "wanted Box, Discrete"]),
        ("env.id=my_envs:Pairs", ["my_envs:Pairs", "Tuple"]),
        ("env.id=my_envs:Refuses env.kwargs={size=1}", ["my_envs:Refuses", "size 1 is too small"]),
        ("env.vectorization=native env.id=LunarLander-v3", ["[env] vectorization", "'native'", "LunarLander-v3"]),
        ("env.wrappers=[{ entry_point = \"my_envs:Nothing\" }]", ["wrappers", "my_envs:Nothing"]),
    ],
)  # fmt: skip
def test_a_wrong_value(told, tmp_path: Path, override: str, parts: list[str]) -> None:
    line = told(*train(*(override.split() if "wrappers" not in override else [override])))
    for part in parts:
        assert part in line
    assert "wanted" in line or "did you mean" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("env", "module", "extra"),
    [("LunarLander-v3", "Box2D", "box2d"), ("ALE/Pong-v5", "ale_py", "atari"), ("HalfCheetah-v5", "mujoco", "mujoco")],
)
def test_a_missing_extra_is_named(tmp_path: Path, env: str, module: str, extra: str) -> None:
    """In a process of its own: what is imported already cannot be missing."""
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from contextlib import nullcontext
from spark_rl import cli
sys.modules["spark_rl.cli.train"].session = lambda *words: nullcontext(None)
sys.exit(cli.main(sys.argv[1:]))
"""
    done = process([sys.executable, "-c", code, *train(f"env.id={env}")], tmp_path)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("spark-rl: ")]
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"the extra '{extra}'" in lines[0]
    assert f"pip install 'spark-rl[{extra}]'" in lines[0]


def process(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK_", "SPARK_")) and k != "JAVA_HOME"}
    env = clean | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_no_java(tmp_path: Path) -> None:
    code = "import sys; from spark_rl.cli import main; sys.exit(main())"
    done = process([sys.executable, "-c", code, *train()], tmp_path, PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(
        "spark-rl: java: got none in JAVA_HOME and PATH; wanted Java 17 or newer; install one"
    )
    assert not (tmp_path / "run").exists()


# ---- run directories ----


def test_a_place_that_cannot_be_written(told, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    line = told(*train(run=str(tmp_path / "file" / "run")))
    assert line.startswith(f"run directory {tmp_path}/file/run: got ")
    assert "wanted a place to write" in line


def test_a_directory_of_something_else(told, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    line = told(*train())
    assert line.startswith(f"run directory {tmp_path}/run: got ")
    assert "thesis.tex" in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_run_that_has_begun(told, tmp_path: Path) -> None:
    told(*train("algorithm.clip=0.25"), code=0)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    line = told(*train("algorithm.clip=0.25"))
    assert "got a run that has begun already" in line
    assert "--resume" in line

    line = told(*train("run.seed=1", "algorithm.clip=0.3"), "--resume")
    assert "another config" in line
    assert "run.seed: 0 -> 1" in line
    assert "algorithm.clip: 0.25 -> 0.3" in line
    assert "rollout" not in line  # what is the same is not told

    # A run written by something newer than this.
    record = tmp_path / "run" / "run.json"
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    record.write_text(json.dumps(json.loads(record.read_text()) | {"schema_version": 99}))
    assert "got schema_version 99; wanted at most 1" in told(*train("algorithm.clip=0.25"), "--resume")
    record.write_text("{")
    assert str(record.parent) in told(*train("algorithm.clip=0.25"), "--resume")


def test_resume_of_nothing(told, tmp_path: Path) -> None:
    line = told(*train(), "--resume")
    assert line.startswith(f"run directory {tmp_path}/run: got no run.json; wanted the directory of a run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()
    assert "got no run.json" in told(*train(run="empty"), "--resume")
    assert "--resume: got no --run" in told("train", PRESET, "--resume")
    assert "got no run.json" in told("evaluate", "nowhere")


def test_a_version_that_is_not_there(told, tmp_path: Path) -> None:
    told(*train(), code=0)
    line = told("evaluate", "run", "--policy-version", "7")
    assert line.startswith("policy version 7 of")
    assert "0 to 2" in line


# ---- locations ----


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("hdfs://127.0.0.1:9/run", ["location hdfs://127.0.0.1:9/run", "libhdfs"]),
        ("gopher://host/run", ["location gopher://host/run", "gopher"]),
        ("s3://bucket/run?endpoint_overide=127.0.0.1:1", ["location s3://bucket/run", "endpoint_overide"]),
    ],
)
def test_a_location_that_cannot_be_reached(told, uri: str, parts: list[str]) -> None:
    line = told(*train(run=uri))
    for part in parts:
        assert part in line
