"""Policies with a memory: numpy against torch, sequences against loops, and the update against a slow one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from spark_rl import seeding
from spark_rl.algorithms.ppo import PPO
from spark_rl.algorithms.ppo_config import PPOConfig
from spark_rl.algorithms.sequences import Sequences
from spark_rl.data.batch import Batch
from spark_rl.errors import RunError
from spark_rl.policies import weights
from spark_rl.policies.build import build
from spark_rl.policies.load import load_acting
from spark_rl.policies.memory import RecurrentMLP
from spark_rl.policies.networks import Memory, Slopes
from spark_rl.policies.spec import PolicySpec
from spark_rl.schema.spaces import Leaf, SpaceSpec

VECTOR = SpaceSpec((Leaf("", "box", "float32", (3,), low=(-1.0,), high=(1.0,)),))
DISCRETE = SpaceSpec((Leaf("", "discrete", "int64", (), n=(3,), start=(1,)),))
CPU = torch.device("cpu")
KINDS = ["lstm", "gru"]
UNITS = 5


def make_spec(kind: str, **choices) -> PolicySpec:
    keys = {"observation": VECTOR, "action": DISCRETE, "hidden": (6,), "recurrent": kind, "recurrent_size": UNITS}
    return PolicySpec(**{**keys, **choices})


def shaken(spec: PolicySpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights none of which is zero, biases included."""
    rng = np.random.default_rng(seed)
    made = build(spec, seed=0, device=CPU).weights()
    return {name: (0.5 * rng.standard_normal(w.shape)).astype(np.float32) for name, w in made.items()}


class Oracle:
    """The network one row at a time, with torch's own cells."""

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        self.named = {name: torch.from_numpy(w.copy()).requires_grad_() for name, w in tensors.items()}
        self.kind = spec.recurrent

    def step(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Parameters [P], value [] and the state after [S], from one observation [F] and state [S]."""
        x = torch.tanh(self.named["trunk.0.weight"] @ x + self.named["trunk.0.bias"])
        cell = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[self.kind](len(x), UNITS)
        core = {name.removeprefix("core."): w for name, w in self.named.items() if name.startswith("core.")}
        if self.kind == "lstm":
            pair = (state[None, :UNITS], state[None, UNITS:])
            after = torch.cat(torch.func.functional_call(cell, core, (x[None], pair)), dim=1)[0]
        else:
            after = torch.func.functional_call(cell, core, (x[None], state[None]))[0]
        h = after[:UNITS]
        params = self.named["actor.head.weight"] @ h + self.named["actor.head.bias"]
        return params, (self.named["critic.head.weight"] @ h + self.named["critic.head.bias"])[0], after


@pytest.mark.parametrize("kind", KINDS)
def test_acting_in_numpy_is_torchs_cell_step_after_step(kind: str) -> None:
    spec = make_spec(kind)
    tensors = shaken(spec)
    policy, oracle = load_acting(spec, weights.encode(tensors)), Oracle(spec, tensors)
    rng = np.random.default_rng(0)
    state = policy.initial_state(4)
    assert state.shape == (4, spec.state_size) and state.dtype == np.float32 and not state.any()
    want = torch.zeros(4, spec.state_size)
    for _ in range(20):
        observation = {"": (3.0 * rng.standard_normal((4, 3))).astype(np.float32)}
        before = state.copy()
        act = policy.act_greedy(observation, state)
        assert_array_equal(state, before)  # the caller's to keep
        rows = [oracle.step(x, s) for x, s in zip(torch.from_numpy(observation[""]), want, strict=True)]
        params, want = torch.stack([row[0] for row in rows]), torch.stack([row[2] for row in rows]).detach()
        assert_allclose(act.state, want, atol=1e-5)
        assert_allclose(act.log_prob, params.log_softmax(1).max(1).values.detach(), atol=1e-5)
        assert_array_equal(act.action, params.argmax(1).numpy() + 1)
        state = act.state
    assert np.abs(state).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_input_does_not_overflow(kind: str) -> None:
    spec = make_spec(kind, activation="relu")
    policy = load_acting(spec, weights.encode(shaken(spec)))
    with np.errstate(all="raise"):
        act = policy.act_greedy({"": np.full((2, 3), 1e6, np.float32)}, policy.initial_state(2))
    assert np.isfinite(act.state).all()


def test_acting_with_a_memory_imports_no_torch() -> None:
    code = "import sys; import spark_rl.policies.recurrent; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


LENGTHS = [4, 1, 3]
FRESH = {(0, 2), (2, 1)}  # (sequence, step)


def ragged(spec: PolicySpec) -> tuple[torch.Tensor, Memory]:
    """Rows of three sequences, one after the other, two of which see an episode begin."""
    rng = torch.Generator().manual_seed(0)
    state = torch.randn(3, spec.state_size, generator=rng)
    fresh = torch.tensor([[(b, t) in FRESH for b in range(3)] for t in range(4)])
    place = torch.tensor([t * 3 + b for b, length in enumerate(LENGTHS) for t in range(length)])
    return torch.randn(8, 3, generator=rng), Memory(state, fresh, place)


def loop(oracle: Oracle, x: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, torch.Tensor]:
    params, values, row = [], [], 0
    for b, length in enumerate(LENGTHS):
        state = memory.state[b]
        for t in range(length):
            if (b, t) in FRESH:
                state = torch.zeros_like(state)
            p, v, state = oracle.step(x[row], state)
            params.append(p)
            values.append(v)
            row += 1
    return torch.stack(params), torch.stack(values)


@pytest.mark.parametrize("kind", KINDS)
def test_network_and_gradient_are_those_of_a_loop_over_rows(kind: str) -> None:
    spec = make_spec(kind)
    tensors = shaken(spec)
    network, oracle = RecurrentMLP(spec, seed=0, device=CPU), Oracle(spec, tensors)
    network.load_weights(tensors)
    x, memory = ragged(spec)
    output = network(x, [], memory=memory, learn=True)
    params, value = loop(oracle, x, memory)
    assert_allclose(output.params.detach(), params.detach(), atol=1e-6)
    assert_allclose(output.value.detach(), value.detach(), atol=1e-6)
    slopes = Slopes(torch.randn(params.shape), None, torch.randn(value.shape))
    ((params * slopes.params).sum() + (value * slopes.value).sum()).backward()
    network.backward(output, slopes)
    for name, got in network.views(network.gradient).items():
        assert_allclose(got, oracle.named[name].grad, atol=1e-5, err_msg=name)
    assert network(x, [], memory=memory).params.requires_grad is False
    assert_array_equal(network(x, [], memory=memory).params, output.params.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_the_loop_tells_a_memory_that_is_kept_over_an_end_or_begins_from_nothing(kind: str) -> None:
    spec = make_spec(kind)
    tensors = shaken(spec)
    network, oracle = RecurrentMLP(spec, seed=0, device=CPU), Oracle(spec, tensors)
    network.load_weights(tensors)
    x, memory = ragged(spec)
    want = loop(oracle, x, memory)[0].detach()
    for wrong in (
        dataclasses.replace(memory, fresh=torch.zeros_like(memory.fresh)),
        dataclasses.replace(memory, state=torch.zeros_like(memory.state)),
        dataclasses.replace(memory, place=memory.place.flip(0)),
    ):
        assert (network(x, [], memory=wrong).params - want).abs().max() > 1e-2


def make_batch(spec: PolicySpec, acting_weights: dict[str, np.ndarray], seed: int = 0) -> Batch:
    """Rows as a rollout makes them: three environments, ends of both kinds, the state of every row."""
    rng = np.random.default_rng(seed)
    policy = load_acting(spec, weights.encode(acting_weights))
    lengths = [11, 7, 12]
    n = sum(lengths)
    env_index = np.repeat(np.arange(3, dtype=np.int32), lengths)
    terminated = rng.random(n) < 0.15
    truncated = (rng.random(n) < 0.15) & ~terminated
    edge = np.append(np.diff(env_index) > 0, True)
    last = terminated | truncated | edge
    assert (terminated & ~edge).any() and (truncated & ~edge).any()
    observation = rng.standard_normal((n, 3)).astype(np.float32)
    action, log_prob = np.zeros(n, np.int64), np.zeros(n, np.float32)
    states = np.zeros((n, spec.state_size), np.float32)
    # Environments go on from the iteration before: they begin with something remembered.
    state = rng.standard_normal((1, spec.state_size)).astype(np.float32)
    for i in range(n):
        states[i] = state
        act = policy.act({"": observation[i : i + 1]}, state, rng)
        action[i], log_prob[i], state = act.action[0], act.log_prob[0], act.state
        if terminated[i] or truncated[i]:
            state = policy.initial_state(1)
        elif edge[i]:
            state = rng.standard_normal((1, spec.state_size)).astype(np.float32)
    return Batch(
        observation={"": observation},
        action=action,
        raw_action=None,
        reward=rng.standard_normal(n) * 3.0,
        terminated=terminated,
        truncated=truncated,
        action_log_prob=log_prob,
        policy_version=np.zeros(n, np.int64),
        episode_id=np.zeros(n, np.int64),
        t=np.zeros(n, np.int32),
        env_index=env_index,
        last_row=np.flatnonzero(last),
        final_observation={"": rng.standard_normal((int(last.sum()), 3)).astype(np.float32)},
        state=states,
    )


def expected_sequences(batch: Batch, length: int) -> list[list[int]]:
    """Rows of each sequence, by a loop."""
    result: list[list[int]] = []
    last = set(batch.last_row.tolist())
    for i in range(batch.num_rows):
        ended = batch.terminated[i - 1] or batch.truncated[i - 1]
        joint = i == 0 or batch.env_index[i] != batch.env_index[i - 1] or (i - 1 in last and not ended)
        if joint or len(result[-1]) == length:
            result.append([])
        result[-1].append(i)
    return result


@pytest.mark.parametrize("length", [1, 3, 5, 100])
@pytest.mark.parametrize("size", [1, 8, 1000])
def test_every_row_is_once_in_an_epoch_in_the_sequence_that_a_loop_gives_it(length: int, size: int) -> None:
    spec = make_spec("gru")
    batch = make_batch(spec, shaken(spec))
    # As when a batch holds two iterations: the first two environments' rows are one environment's.
    batch = dataclasses.replace(batch, env_index=np.where(batch.env_index == 2, 2, 0).astype(np.int32))
    wanted = expected_sequences(batch, length)
    sequences = Sequences(batch, torch.from_numpy(batch.state), length)
    rows, sizes, memories = sequences.draw(np.random.default_rng(0), size)
    assert sorted(rows.tolist()) == list(range(batch.num_rows)) and sum(sizes) == batch.num_rows
    found = []
    for part, memory in zip(np.split(rows, np.cumsum(sizes)[:-1]), memories, strict=True):
        grid = np.full(memory.fresh.numel(), -1)
        grid[memory.place.numpy()] = part
        for b, column in enumerate(grid.reshape(memory.fresh.shape).T):
            real = column[column >= 0]
            assert_array_equal(column[: len(real)], real)  # the padding comes last
            found.append(real.tolist())
            assert_array_equal(memory.state[b], batch.state[real[0]])
            ended = batch.terminated | batch.truncated
            assert_array_equal(memory.fresh[: len(real), b], [False, *ended[real[:-1]]])
        assert len(part) <= max(size, length)
    assert sorted(found) == wanted


def make_ppo(kind: str, **keys) -> PPO:
    config = PPOConfig(**{"num_epochs": 2, "minibatch_size": 9, "learning_rate": 0.01, "sequence_length": 4, **keys})
    ppo = PPO(config, make_spec(kind), device="cpu", seed=7, num_envs=3)
    ppo.network.load_weights(shaken(ppo.policy))
    return ppo


def slow_update(ppo: PPO, batch: Batch) -> dict[str, np.ndarray]:
    """The same update with loops over rows, autograd and torch's own optimizer."""
    config, n = ppo.config, batch.num_rows
    oracle = Oracle(ppo.policy, ppo.network.weights())
    observation, final = torch.from_numpy(batch.observation[""]), torch.from_numpy(batch.final_observation[""])
    stored = torch.from_numpy(batch.state)
    steps = [oracle.step(observation[i], stored[i]) for i in range(n)]
    value = [step[1].item() for step in steps]
    last = batch.last_row.tolist()
    final_value = {i: oracle.step(final[j], steps[i][2])[1].item() for j, i in enumerate(last)}
    advantages = [0.0] * n
    for i in reversed(range(n)):
        next_value = final_value[i] if i in final_value else value[i + 1]
        delta = batch.reward[i] + (0.0 if batch.terminated[i] else config.discount * next_value) - value[i]
        tail = 0.0 if i in final_value else advantages[i + 1]
        advantages[i] = delta + config.discount * config.gae_lambda * tail
    advantage = torch.tensor(advantages)
    target = advantage + torch.tensor(value)
    optimizer = torch.optim.Adam(oracle.named.values(), lr=config.learning_rate, eps=config.adam_eps)
    rng = seeding.generator(7, seeding.LEARNER, 0)
    sequences = expected_sequences(batch, config.sequence_length)
    per = config.minibatch_size // config.sequence_length
    for _ in range(config.num_epochs):
        for group in np.array_split(rng.permutation(len(sequences)), -(-len(sequences) // per)):
            rows, params, values = [], [], []
            for s in group:
                state = stored[sequences[s][0]]
                for i in sequences[s]:
                    if i > sequences[s][0] and (batch.terminated[i - 1] or batch.truncated[i - 1]):
                        state = torch.zeros_like(state)
                    p, v, state = oracle.step(observation[i], state)
                    rows.append(i)
                    params.append(p)
                    values.append(v)
            a = advantage[rows]
            a = (a - a.mean()) / (a.std() + 1e-8)
            log_prob = torch.stack(params).log_softmax(1)[range(len(rows)), batch.action[rows] - 1]
            ratio = (log_prob - torch.from_numpy(batch.action_log_prob[rows])).exp()
            policy_loss = -torch.min(a * ratio, a * ratio.clamp(1 - config.clip, 1 + config.clip)).mean()
            loss = policy_loss + config.value_coef * (torch.stack(values) - target[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(oracle.named.values(), config.max_grad_norm)
            optimizer.step()
    return {name: w.detach().numpy() for name, w in oracle.named.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 4, 9])
def test_update_equals_a_slow_one(kind: str, length: int) -> None:
    ppo = make_ppo(kind, sequence_length=length)
    batch = make_batch(ppo.policy, ppo.weights())
    want, before = slow_update(ppo, batch), ppo.weights()
    ppo.update(batch, iteration=0, progress=0.0)
    for name, got in ppo.weights().items():
        assert np.abs(got - before[name]).max() > 1e-3, f"{name} did not move"
        assert_allclose(got, want[name], atol=3e-4, err_msg=name)


@pytest.mark.parametrize("bug", ["states of other rows", "no state", "ends that are none", "half the sequence"])
def test_the_slow_update_catches_planted_bugs(bug: str) -> None:
    ppo = make_ppo("lstm", sequence_length=2 if bug == "half the sequence" else 4)
    batch = make_batch(ppo.policy, ppo.weights())
    want = slow_update(make_ppo("lstm"), batch)
    wrong = {
        "states of other rows": {"state": np.roll(batch.state, 1, axis=0)},
        "no state": {"state": np.zeros_like(batch.state)},
        "ends that are none": {"terminated": np.zeros_like(batch.terminated), "truncated": batch.terminated},
        "half the sequence": {},
    }[bug]
    ppo.update(dataclasses.replace(batch, **wrong), iteration=0, progress=0.0)
    assert max(np.abs(got - want[name]).max() for name, got in ppo.weights().items()) > 2e-3


def test_rows_of_another_policy_are_refused() -> None:
    ppo = make_ppo("gru")
    batch = make_batch(ppo.policy, ppo.weights())
    with pytest.raises(RunError, match="a batch's states: got none"):
        ppo.update(dataclasses.replace(batch, state=None), iteration=0, progress=0.0)
