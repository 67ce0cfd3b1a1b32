"""Every benchmark runs through in --quick mode and says what it measured; its floors do the work they claim to do."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spark_rl import builder
from spark_rl.algorithms.ppo_config import PPOConfig
from spark_rl.benchmarks import comparison, crew, scale, steppers, torch_ppo, workload, write
from spark_rl.benchmarks.benchmark import MODULES, load
from spark_rl.benchmarks.comparison import Comparison
from spark_rl.cli import main
from spark_rl.errors import RunError, UserError
from spark_rl.losses.returns import gae
from spark_rl.policies.load import load_acting
from spark_rl.rollout.local import LocalCollector
from spark_rl.rollout.spec import RolloutSpec

FIELDS = {"name", "ours", "floor", "ratio", "unit", "better", "paired_ratio", "spread", "rounds", "settings", "detail",
          "machine"}  # fmt: skip
RESULTS = {
    "rollout": ["rollout/floor_plain", "rollout/floor_engine"],
    "iteration": ["iteration"],
    "write": ["write/defaults", "write/same_options"],
    "feed": ["feed", "feed/one_pass"],
    "scale": ["scale", "scale/driver"],
    "memory": ["memory/driver", "memory/jvm", "memory/workers"],
    "learn": ["learn/default_threads", "learn/one_thread"],
    "update": ["update"],
}
needs_peer = pytest.mark.skipif(find_spec("stable_baselines3") is None, reason="needs the extra bench")


def results(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """The JSON lines of a benchmark that ended well."""
    capsys.readouterr()
    code = main(["benchmark", *words, "--quick", "--json", "--debug"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return [json.loads(line) for line in captured.out.splitlines()]


def check(found: list[dict[str, Any]], names: list[str]) -> None:
    assert [one["name"] for one in found] == names
    for one in found:
        assert set(one) == FIELDS
        assert one["ratio"] == one["ours"] / one["floor"]
        for side in ("ours", "floor"):
            values = one["rounds"][side]
            assert one[side] == statistics.median(values)
            assert one["spread"][side] == [min(values), max(values)]
            assert min(values) > 0.0 or one["name"] == "scale/driver"  # a slope of two tiny jobs may be anything
        assert len(one["rounds"]["ours"]) == len(one["rounds"]["floor"])
        assert {"cores", "cpu", "versions", "date", "load_1min", "quick"} <= set(one["machine"])
        assert one["settings"]


# ---- each benchmark ----


@pytest.mark.parametrize("name", ["rollout", "iteration", "scale", "memory"])
def test_a_benchmark_on_spark_says_what_it_measured(spark: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    check(results(capsys, name), RESULTS[name])


@pytest.mark.parametrize("name", ["write", "feed", "update"])
def test_a_benchmark_without_spark_says_what_it_measured(capsys: pytest.CaptureFixture[str], name: str) -> None:
    check(results(capsys, name), RESULTS[name])


def test_update_measures_the_cnn_too(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "update", "--network", "nature_cnn", "--device", "cpu", "--rounds", "1")
    check(found, ["update"])
    assert found[0]["settings"]["network"] == "nature_cnn"


@needs_peer
def test_learn_trains_both_to_the_target(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "learn")
    check(found, RESULTS["learn"])
    for side in ("ours", "floor"):
        facts = found[0]["detail"][side]
        assert facts["return_mean"][0] >= found[0]["settings"]["target"]
        assert facts["failed_seeds"] == []
        assert facts["start_s"][0] > 0.0


@needs_peer
def test_rollout_asks_the_peers(spark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "rollout", "--peers")
    check(found, [*RESULTS["rollout"], "rollout/stable-baselines3_8", "rollout/stable-baselines3_256"])


def test_every_benchmark_is_tested() -> None:
    assert RESULTS.keys() == MODULES.keys()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["rolout"], "did you mean 'rollout'?"),
        (["write", "--groups", "3"], "benchmark write: got the option --groups; wanted one of --env"),
        (["feed", "--config", "missing.toml"], "missing.toml"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], part: str
) -> None:
    assert main(["benchmark", *words]) == 2
    said = capsys.readouterr().err
    assert part in said
    assert len(said.splitlines()) == 1


def test_quick_settings_differ_from_the_real_ones() -> None:
    for name in MODULES:
        found = load(name)
        assert found.quick != found.settings


# ---- how results are made ----


def test_ratio_is_of_medians_and_the_paired_one_of_rounds() -> None:
    made = Comparison(name="n", unit="u", better="higher", ours=[1.0, 8.0, 9.0], floor=[1.0, 2.0, 9.0], settings={})
    facts = made.to_dict()
    assert facts["ratio"] == 8.0 / 2.0
    assert facts["paired_ratio"] == 1.0  # of 1, 4 and 1: the round in which the floor was disturbed does not count
    assert facts["spread"]["ratio"] == [1.0, 4.0]
    assert "8 over 2 u = 4" in str(made)


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(RunError, match="2 rounds of ours, 1 of the floor"):
        Comparison(name="n", unit="u", better="higher", ours=[1.0, 2.0], floor=[1.0], settings={})


def test_measures_take_turns() -> None:
    calls: list[str] = []
    numbers = iter(range(6))

    def measure(who: str) -> float:
        calls.append(who)
        return float(next(numbers))

    assert comparison.in_turns(3, lambda: measure("a"), lambda: measure("b")) == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    assert calls == ["a", "b", "a", "b", "a", "b"]


def test_fit_finds_a_planted_line() -> None:
    tasks = [2, 20, 200, 2000]
    fixed, per_task = scale.fit(tasks, [70.0 + 3.5 * n for n in tasks])
    assert (fixed, per_task) == pytest.approx((70.0, 3.5))


# ---- the floors ----


def spec_of(env: str, **wanted: Any) -> tuple[RolloutSpec, dict[str, np.ndarray]]:
    """A rollout of one group and initial weights, the critic left in."""
    config = workload.config(env, groups=1, **wanted)
    plan = builder.env_plan(config)
    policy = builder.policy_spec(config, plan)
    spec = builder.rollout_spec(config, plan, policy, run_id="r", run_uri="/nowhere")
    return spec, builder.learner(config, policy).weights()


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_the_floor_counts_no_resets(vectorization: str) -> None:
    """No CartPole falls within 3 steps, so with that limit every fourth vector step only resets."""
    spec, tensors = spec_of("CartPole-v1", envs_per_group=5)
    env = dataclasses.replace(spec.env, max_episode_steps=3, vectorization=vectorization)
    spec = dataclasses.replace(spec, env=env, native=vectorization == "native")
    content = workload.codec.encode(tensors)
    for make in (steppers.plain, steppers.engine):
        stepper = make(spec, content, 0)
        assert stepper(4) == 5 * 3
        assert stepper(2) == 5 * 2  # it goes on where it was
        assert stepper(2) == 5 * 1


@pytest.mark.parametrize(("env", "network"), [("CartPole-v1", "mlp"), ("Pendulum-v1", "mlp")])
def test_the_plain_policy_is_the_same_policy(env: str, network: str) -> None:
    spec, tensors = spec_of(env, envs_per_group=64, network=network)
    tensors["actor.head.weight"] *= 100.0  # far from uniform, so that a wrong layer would show
    act = steppers._numpy_mlp(spec, tensors)
    rng = np.random.default_rng(0)
    leaf = spec.policy.observation.only
    observation = rng.standard_normal((20_000, *leaf.shape), np.float32)[:1].repeat(20_000, axis=0)
    mine, their_log_prob = act(observation, np.random.default_rng(1))
    ours = load_acting(spec.policy, workload.codec.encode(tensors)).act({"": observation}, None, rng)
    # One state many times: the means of actions and of log-probabilities are the distribution's own, to 5 deviations.
    for one, other in ((mine, ours.action), (their_log_prob, ours.log_prob)):
        error = 5.0 * np.sqrt(2.0 * one.var() / len(one)) + 1e-6
        assert abs(one.mean(dtype=np.float64) - other.mean(dtype=np.float64)) < error


def test_the_plain_cnn_is_the_same_network() -> None:
    pytest.importorskip("ale_py")
    spec, tensors = spec_of("ALE/Pong-v5", envs_per_group=2, network="nature_cnn")
    tensors["actor.head.weight"] *= 100.0
    observation = np.random.default_rng(0).integers(0, 256, (1, *spec.policy.observation.only.shape), np.uint8)
    many = observation.repeat(64, axis=0)
    action, log_prob = steppers._torch_cnn(spec, tensors)(many, np.random.default_rng(1))
    ours = load_acting(spec.policy, workload.codec.encode(tensors)).act({"": many}, None, np.random.default_rng(2))
    known = dict(zip(ours.action.tolist(), ours.log_prob.tolist(), strict=True))
    shared = [i for i in range(64) if int(action[i]) in known]
    assert len(shared) > 10
    for i in shared:
        assert log_prob[i] == pytest.approx(known[int(action[i])], abs=1e-4)


def test_single_file_ppo_has_our_advantages_and_learns() -> None:
    rng = torch.Generator().manual_seed(0)
    steps, envs = 12, 3
    columns = [torch.randn(steps, envs, generator=rng) for _ in range(2)]
    done = torch.rand(steps, envs, generator=rng) < 0.2
    assert done.any()
    ppo = PPOConfig.model_validate({"num_epochs": 2, "minibatch_size": 12})
    stored = torch_ppo.Storage(
        observation=torch.randn(steps, envs, 4, generator=rng), action=torch.zeros(steps, envs, dtype=torch.int64),
        log_prob=torch.full((steps, envs), -0.7), reward=columns[0], done=done.float(), value=columns[1],
        next_value=torch.randn(envs, generator=rng),
    )  # fmt: skip
    next_value = torch.cat([stored.value[1:], stored.next_value[None]])
    expected = gae(stored.reward, stored.value, next_value, done, torch.zeros_like(done), discount=ppo.discount,
                   lam=ppo.gae_lambda)  # fmt: skip
    torch.testing.assert_close(torch_ppo._gae(stored, ppo), expected)
    agent = torch_ppo.MLPAgent(4, 2, (8,))
    before = [parameter.detach().clone() for parameter in agent.parameters()]
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)
    assert torch_ppo.update(agent, optimizer, stored, ppo) == 2 * 3
    assert all(not torch.equal(one, other) for one, other in zip(before, agent.parameters(), strict=True))


def test_the_same_options_give_the_stores_own_file(tmp_path: Path) -> None:
    config = workload.config("CartPole-v1", groups=1, envs_per_group=4, steps=32)
    source = workload.CollectingRun(config, str(tmp_path / "run"), LocalCollector())
    file = source.iterate().commit.of("transitions")[0]
    table = write.stored_table(source.store.root, file.name)
    options = write.store_options(table, source.spec.compression)
    write.pq.write_table(table, tmp_path / "bare.parquet", **options)
    assert (tmp_path / "bare.parquet").read_bytes() == source.store.root.read(f"transitions/iteration=0/{file.name}")


def test_every_iteration_has_weights_of_its_own(tmp_path: Path) -> None:
    config = workload.config("CartPole-v1", groups=1, envs_per_group=2, steps=4)
    source = workload.CollectingRun(config, str(tmp_path / "run"), LocalCollector())
    commits = [source.iterate().commit for _ in range(3)]
    assert len({commit.weights_sha256 for commit in commits}) == 3


# ---- plain processes ----


def doubler(offset: int) -> crew.Stepper:
    return lambda steps: 2 * steps + offset


def broken(offset: int) -> crew.Stepper:
    raise UserError("here", "nothing")


def threads(_: int) -> crew.Stepper:
    return lambda steps: int(os.environ.get("OMP_NUM_THREADS", "0"))


@pytest.fixture
def no_thread_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_a_crew_adds_up_what_its_members_did() -> None:
    with crew.Crew(doubler, [(1,), (10,)]) as members:
        assert members.run(5)[0] == 11 + 20
        assert members.run(5, 1)[0] == 11
        assert members.rate(5) > 0.0


@pytest.mark.usefixtures("no_thread_setting")
def test_a_crew_has_one_thread_each_and_leaves_no_setting_behind() -> None:
    with crew.Crew(threads, [(0,)]) as members:
        assert members.run(1)[0] == 1
    with crew.Crew(threads, [(0,)], one_thread=False) as members:
        assert members.run(1)[0] == 0
    assert "OMP_NUM_THREADS" not in os.environ


def test_what_breaks_in_a_crew_is_told() -> None:
    with pytest.raises(RunError, match="UserError: here: got nothing"), crew.Crew(broken, [(0,)]):
        pass
