"""Acting in numpy against the networks in torch, both against torch.distributions, and the hand-written slopes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import distributions as reference

from spark_rl.errors import RunError, UserError
from spark_rl.policies import weights
from spark_rl.policies.build import build
from spark_rl.policies.distributions import family
from spark_rl.policies.features import Features, Normalizer
from spark_rl.policies.load import load_acting
from spark_rl.policies.networks import Network, Slopes
from spark_rl.policies.spec import PolicySpec
from spark_rl.schema.spaces import Leaf, SpaceSpec

CPU = torch.device("cpu")
N = 64

VECTOR = SpaceSpec((Leaf("", "box", "float32", (5,), low=(-1.0,), high=(1.0,)),))
IMAGE = SpaceSpec((Leaf("", "box", "uint8", (4, 84, 84), low=(0.0,), high=(255.0,)),))
NESTED = SpaceSpec(
    (
        Leaf("camera.front", "box", "uint8", (40, 36, 3), low=(0.0,), high=(255.0,)),
        Leaf("gear", "discrete", "int64", (), n=(3,), start=(-1,)),
        Leaf("grid", "multi_discrete", "int64", (2, 2), n=(2, 3, 4, 2), start=(0, 1, 0, 0)),
        Leaf("speed", "box", "float32", (2, 3), low=(-1.0,), high=(1.0,)),
        Leaf("ticks", "box", "int64", (2,), low=(0.0,), high=(9.0,)),
        Leaf("doors", "multi_binary", "int8", (3,)),
    ),
    structure="dict",
)
DISCRETE = SpaceSpec((Leaf("", "discrete", "int64", (), n=(4,), start=(2,)),))
MULTI = SpaceSpec((Leaf("", "multi_discrete", "int64", (3,), n=(2, 5, 3), start=(0, 0, 1)),))
BOX = SpaceSpec((Leaf("", "box", "float32", (2, 1), low=(-0.5, -2.0), high=(0.5, np.inf)),))
ACTIONS = {"discrete": DISCRETE, "multi_discrete": MULTI, "box": BOX}


def observe(space: SpaceSpec, n: int = N, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    result = {}
    for leaf in space.leaves:
        shape = (n, *leaf.shape)
        if leaf.kind in ("discrete", "multi_discrete"):
            low = np.reshape(leaf.start, leaf.shape)
            values = rng.integers(low, low + np.reshape(leaf.n, leaf.shape), shape)
        elif leaf.kind == "multi_binary":
            values = rng.integers(0, 2, shape)
        else:
            values = rng.integers(0, 256 if leaf.dtype == "uint8" else 10, shape)
            values = rng.standard_normal(shape) if leaf.dtype == "float32" else values
        result[leaf.name] = np.asarray(values).astype(leaf.dtype)
    return result


def policy(observation: SpaceSpec, action: SpaceSpec, **choices) -> tuple[PolicySpec, Network, dict[str, np.ndarray]]:
    spec = PolicySpec(observation=observation, action=action, **choices)
    network = build(spec, seed=1, device=CPU)
    rng = np.random.default_rng(1)
    # Larger heads and a deviation that is not 1, or every policy would be near its uniform start.
    tensors = network.weights()
    for name in ("actor.head.weight", "actor.head.bias"):
        tensors[name] = (0.3 * rng.standard_normal(tensors[name].shape)).astype(np.float32)
    if "log_std" in tensors:
        tensors["log_std"] = np.linspace(-0.7, 0.3, len(tensors["log_std"])).astype(np.float32)
    network.load_weights(tensors)
    if spec.normalize_observation:
        size = Features(observation, images=spec.network == "nature_cnn").size
        tensors["normalizer.mean"], tensors["normalizer.var"] = rng.standard_normal(size), rng.random(size) + 0.1
    return spec, network, tensors


def learner_output(spec, network, tensors, observation, *, learn=False):
    features = Features(spec.observation, images=spec.network == "nature_cnn")
    flat = features.encode(observation)
    if spec.normalize_observation:
        flat = np.clip((flat - tensors["normalizer.mean"]) / np.sqrt(tensors["normalizer.var"] + 1e-8), -10, 10)
    images = [torch.from_numpy(image) for image in features.images(observation)]
    return network(torch.from_numpy(flat.astype(np.float32)), images, learn=learn)


def peer(params: torch.Tensor, action: SpaceSpec, log_std: torch.Tensor | None, stored: np.ndarray):
    """Log-probability [N] and entropy [N] by torch.distributions, and the mode."""
    leaf = action.only
    if leaf.kind == "box":
        assert log_std is not None
        normal = reference.Independent(reference.Normal(params, log_std.exp().expand_as(params)), 1)
        return normal.log_prob(torch.from_numpy(stored.reshape(len(stored), -1))), normal.entropy(), params
    parts = [reference.Categorical(logits=logits) for logits in params.split(leaf.n, dim=1)]
    index = torch.from_numpy(stored.reshape(len(stored), -1) - np.asarray(leaf.start))
    log_prob = sum(part.log_prob(index[:, d]) for d, part in enumerate(parts))
    mode = torch.stack([part.probs.argmax(1) for part in parts], 1) + torch.tensor(leaf.start)
    return log_prob, sum(part.entropy() for part in parts), mode


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize(
    ("observation", "choices"),
    [
        (VECTOR, {"hidden": (64, 64)}),
        (VECTOR, {"hidden": (16,), "activation": "relu", "normalize_observation": True}),
        (VECTOR, {"hidden": ()}),
        (NESTED, {"hidden": (8, 8, 8), "normalize_observation": True}),
        (IMAGE, {"network": "nature_cnn", "hidden": (32,), "activation": "relu"}),
        (NESTED, {"network": "nature_cnn", "hidden": (16,), "normalize_observation": True}),
    ],
)
def test_acting_equals_the_learner_and_torch_distributions(kind, observation, choices) -> None:
    spec, network, tensors = policy(observation, ACTIONS[kind], **choices)
    acting = load_acting(spec, weights.encode(tensors))
    seen = observe(observation)
    output = learner_output(spec, network, tensors, seen)
    assert_allclose(acting.params(seen).T, output.params, atol=1e-5)

    act = acting.act(seen, acting.initial_state(N), np.random.default_rng(3))
    leaf = spec.action.only
    assert act.action.shape == (N, *leaf.shape) and act.action.dtype == leaf.dtype
    assert act.log_prob.shape == (N,) and act.log_prob.dtype == np.float32
    stored = act.action if act.raw_action is None else act.raw_action
    log_prob, entropy, mode = peer(output.params, spec.action, output.log_std, stored)
    assert_allclose(act.log_prob, log_prob, atol=1e-5)

    members = family(leaf)
    target = torch.from_numpy(members.target(act.action, act.raw_action))
    actions = members(output.params, output.log_std)
    assert_allclose(actions.log_prob(target), log_prob, atol=1e-5)
    assert_allclose(actions.entropy(), entropy, atol=1e-5)

    greedy = acting.act_greedy(seen, None)
    chosen = greedy.action if greedy.raw_action is None else greedy.raw_action
    assert_allclose(chosen.reshape(N, -1), mode.reshape(N, -1), atol=1e-5)
    assert_allclose(greedy.log_prob, peer(output.params, spec.action, output.log_std, chosen)[0], atol=1e-5)


@pytest.mark.parametrize("kind", ACTIONS)
def test_samples_follow_the_distribution(kind: str) -> None:
    """20,000 draws of one state: frequencies, or mean and deviation, within four standard errors."""
    n = 20_000
    spec, _, tensors = policy(VECTOR, ACTIONS[kind])
    acting = load_acting(spec, weights.encode(tensors))
    seen = {"": np.repeat(observe(VECTOR, 1)[""], n, axis=0)}
    params = acting.params(seen)[:, 0]
    act = acting.act(seen, None, np.random.default_rng(0))
    leaf = spec.action.only
    if kind == "box":
        raw = act.raw_action.reshape(n, -1)
        std = np.exp(tensors["log_std"])
        assert_allclose(raw.mean(0), params, atol=4 * std.max() / np.sqrt(n))
        assert_allclose(raw.std(0), std, rtol=4 / np.sqrt(2 * n))
        return
    values = act.action.reshape(n, -1) - np.asarray(leaf.start)
    for d, logits in enumerate(np.split(params, np.cumsum(leaf.n)[:-1])):
        probs = np.exp(logits) / np.exp(logits).sum()
        share = np.bincount(values[:, d], minlength=leaf.n[d]) / n
        assert_allclose(share, probs, atol=4 * np.sqrt(0.25 / n))
        assert np.abs(share[::-1] - probs).max() > 4 * np.sqrt(0.25 / n)  # the order of the components matters


def test_an_impossible_action_is_never_drawn() -> None:
    spec, _, tensors = policy(VECTOR, DISCRETE)
    tensors["actor.head.weight"][:] = 0.0
    tensors["actor.head.bias"] = np.asarray([-1e9, 0.0, 0.0, -1e9], np.float32)
    act = load_acting(spec, weights.encode(tensors)).act(observe(VECTOR, 10_000), None, np.random.default_rng(0))
    assert set(act.action) == {3, 4}
    assert_allclose(act.log_prob, np.log(0.5), atol=1e-6)


def test_the_environment_gets_the_clipped_sample_and_keeps_the_raw_one() -> None:
    spec, _, tensors = policy(VECTOR, BOX)
    act = load_acting(spec, weights.encode(tensors)).act(observe(VECTOR, 500), None, np.random.default_rng(0))
    low, high = (np.reshape(bound, (2, 1)) for bound in (BOX.only.low, BOX.only.high))
    assert (act.raw_action < low).any() and (act.raw_action[:, 0] > 0.5).any()
    assert_array_equal(act.action, np.clip(act.raw_action, low, high).astype(np.float32))


def test_equal_generators_give_equal_bits_and_an_act_is_the_callers_to_keep() -> None:
    spec, _, tensors = policy(VECTOR, BOX)
    acting = load_acting(spec, weights.encode(tensors))
    first = acting.act(observe(VECTOR), None, np.random.default_rng(5))
    copy = first.action.copy(), first.raw_action.copy(), first.log_prob.copy()
    acting.act(observe(VECTOR, seed=1), None, np.random.default_rng(6))
    again = load_acting(spec, weights.encode(tensors)).act(observe(VECTOR), None, np.random.default_rng(5))
    for kept, now, repeated in zip(
        copy,
        (first.action, first.raw_action, first.log_prob),
        (again.action, again.raw_action, again.log_prob),
        strict=True,
    ):
        assert_array_equal(kept, now)
        assert_array_equal(kept, repeated)


def test_features_are_what_a_loop_over_rows_makes_of_them() -> None:
    seen = observe(NESTED, 7)
    features = Features(NESTED, images=True)
    got = features.encode(seen)
    for row in range(7):
        want: list[float] = [float(seen["gear"][row] == value) for value in (-1, 0, 1)]
        for value, n, start in zip(seen["grid"][row].ravel(), (2, 3, 4, 2), (0, 1, 0, 0), strict=True):
            want += [float(value - start == k) for k in range(n)]
        want += [*seen["speed"][row].ravel(), *seen["ticks"][row], *seen["doors"][row]]
        assert_array_equal(got[row], np.asarray(want, np.float32))
    assert got.dtype == np.float32
    assert_array_equal(features.images(seen)[0], seen["camera.front"])
    assert features.normalized.sum() == 6 + 2  # speed and ticks; the rest are indicators
    flat = Features(NESTED, images=False)
    assert flat.size == features.size + 40 * 36 * 3
    assert flat.encode(seen)[:, : 40 * 36 * 3].max() <= 1.0


def test_the_normalizer_clips() -> None:
    normalize = Normalizer(np.asarray([1.0, 0.0]), np.asarray([4.0, 1e-12]))
    got = normalize(np.asarray([[3.0, 5.0], [1.0, -5.0]], np.float32))
    assert_allclose(got, [[1.0, 10.0], [0.0, -10.0]], rtol=1e-6)


@pytest.mark.parametrize("kind", ACTIONS)
def test_distribution_slopes_are_autograds(kind: str) -> None:
    leaf = ACTIONS[kind].only
    members = family(leaf)
    rng = torch.Generator().manual_seed(0)
    params = torch.randn(N, members.num_params, generator=rng, dtype=torch.float64, requires_grad=True)
    log_std = torch.randn(leaf.size, generator=rng, dtype=torch.float64, requires_grad=True) if kind == "box" else None
    seen = observe(ACTIONS[kind])[""]
    target = torch.from_numpy(members.target(seen, seen))
    weight = torch.randn(N, generator=rng, dtype=torch.float64)
    for entropy_slope in (0.0, -0.3):
        actions = members(params, log_std)
        loss = (weight * actions.log_prob(target)).sum() + entropy_slope * actions.entropy().sum()
        leaves = [params] if log_std is None else [params, log_std]
        want = torch.autograd.grad(loss, leaves)
        with torch.no_grad():
            got = members(params, log_std).slopes(target, weight, entropy_slope)
        assert_allclose(got[0], want[0], atol=1e-12)
        if log_std is not None:
            assert_allclose(got[1], want[1], atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (16,), (64, 64), (8, 24, 16)])
@pytest.mark.parametrize("kind", ACTIONS)
def test_the_mlps_own_backward_pass_is_autograds(activation, hidden, kind) -> None:
    spec, network, _ = policy(VECTOR, ACTIONS[kind], hidden=hidden, activation=activation)
    features = torch.from_numpy(observe(VECTOR)[""])
    leaves = {name: torch.from_numpy(tensor).requires_grad_() for name, tensor in network.weights().items()}

    def tower(name: str) -> torch.Tensor:
        x = features
        for i in range(len(hidden)):
            x = getattr(torch, activation)(x @ leaves[f"{name}.{i}.weight"].T + leaves[f"{name}.{i}.bias"])
        return x @ leaves[f"{name}.head.weight"].T + leaves[f"{name}.head.bias"]

    params, value = tower("actor"), tower("critic")[:, 0]
    output = network(features, [], learn=True)
    assert_allclose(output.params, params.detach(), atol=1e-5)
    assert_allclose(output.value, value.detach(), atol=1e-5)
    rng = torch.Generator().manual_seed(0)
    slopes = Slopes(
        torch.randn(params.shape, generator=rng),
        torch.randn(spec.action.only.size, generator=rng) if kind == "box" else None,
        torch.randn(value.shape, generator=rng),
    )
    loss = (params * slopes.params).sum() + (value * slopes.value).sum()
    if slopes.log_std is not None:
        loss = loss + (leaves["log_std"] * slopes.log_std).sum()
    loss.backward()
    got = network.views(network.backward(output, slopes))
    for name, leaf in leaves.items():
        assert_allclose(got[name], leaf.grad, rtol=1e-4, atol=1e-4 * float(leaf.grad.abs().max()), err_msg=name)


def test_the_cnns_gradient_is_that_of_a_torch_module() -> None:
    _, network, _ = policy(IMAGE, BOX, network="nature_cnn", hidden=(32,), activation="relu")
    named = {name: torch.from_numpy(tensor) for name, tensor in network.weights().items()}
    body = torch.nn.Sequential(
        torch.nn.Conv2d(4, 32, 8, 4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 4, 2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(64, 64, 3, 1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(3136, 32),
        torch.nn.ReLU(),
    )
    heads = torch.nn.Linear(32, 2), torch.nn.Linear(32, 1)
    mine = ["encoder.0.0", "encoder.0.1", "encoder.0.2", "trunk.0", "actor.head", "critic.head"]
    modules = [body[0], body[2], body[4], body[7], *heads]
    for name, module in zip(mine, modules, strict=True):
        module.load_state_dict({"weight": named[f"{name}.weight"], "bias": named[f"{name}.bias"]})
    image = torch.from_numpy(observe(IMAGE, 6)[""])
    hidden = body(image / 255.0)
    slopes = Slopes(torch.randn(6, 2), torch.randn(2), torch.randn(6))
    ((heads[0](hidden) * slopes.params).sum() + (heads[1](hidden)[:, 0] * slopes.value).sum()).backward()
    output = network(torch.zeros(6, 0), [image], learn=True)
    got = network.views(network.backward(output, slopes))
    for name, module in zip(mine, modules, strict=True):
        for part in ("weight", "bias"):
            want = getattr(module, part).grad
            assert_allclose(got[f"{name}.{part}"], want, atol=1e-4 * float(want.abs().max()), err_msg=name)
    assert_array_equal(got["log_std"], slopes.log_std)


def test_channels_are_the_shorter_end_of_an_image() -> None:
    first, last = IMAGE, SpaceSpec((Leaf("", "box", "uint8", (84, 84, 4), low=(0.0,), high=(255.0,)),))
    _, network, tensors = policy(first, DISCRETE, network="nature_cnn", hidden=(8,))
    _, other, _ = policy(last, DISCRETE, network="nature_cnn", hidden=(8,))
    other.load_weights(tensors)
    image = observe(first, 3)[""]
    a = network(torch.zeros(3, 0), [torch.from_numpy(image)]).params
    b = other(torch.zeros(3, 0), [torch.from_numpy(np.ascontiguousarray(image.transpose(0, 2, 3, 1)))]).params
    assert_allclose(a, b, atol=1e-5)


def test_initial_weights_are_orthogonal_with_the_gains_of_ppo_and_follow_the_seed() -> None:
    spec = PolicySpec(observation=VECTOR, action=BOX, log_std_init=-0.5)
    named = build(spec, seed=3, device=CPU).weights()
    assert_allclose(named["actor.1.weight"] @ named["actor.1.weight"].T, 2.0 * np.eye(64), atol=1e-5)
    assert_allclose(named["actor.head.weight"] @ named["actor.head.weight"].T, 1e-4 * np.eye(2), atol=1e-8)
    assert_allclose(named["critic.head.weight"] @ named["critic.head.weight"].T, 1.0, atol=1e-5)
    assert not named["actor.0.bias"].any()
    assert_array_equal(named["log_std"], np.float32([-0.5, -0.5]))
    again, other = (build(spec, seed=seed, device=CPU).weights() for seed in (3, 4))
    assert weights.encode(again) == weights.encode(named) != weights.encode(other)
    assert not np.array_equal(named["actor.0.weight"], named["critic.0.weight"])


def test_weights_of_another_policy_are_refused() -> None:
    _, network, tensors = policy(VECTOR, DISCRETE)
    with pytest.raises(RunError, match=r"'actor.0.weight': got shape \[64, 4\]; wanted shape \[64, 5\]"):
        network.load_weights({**tensors, "actor.0.weight": np.zeros((64, 4), np.float32)})
    del tensors["critic.head.bias"]
    with pytest.raises(RunError, match="'critic.head.bias': got nothing"):
        network.load_weights(tensors)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"network": "resnet"}, "policy.network: got 'resnet'; wanted one of 'mlp', 'nature_cnn'"),
        ({"activation": "gelu"}, "policy.activation: got 'gelu'"),
        ({"recurrent": "rnn"}, "policy.recurrent: got 'rnn'; wanted one of '', 'lstm', 'gru'"),
        ({"recurrent": "lstm", "observation": IMAGE, "network": "nature_cnn"}, "wanted network = 'mlp'"),
        ({"recurrent": "lstm", "recurrent_size": 0}, "policy.hidden, policy.recurrent_size: got [64, 64, 0]"),
        ({"hidden": (64, 0)}, "policy.hidden: got"),
        ({"network": "nature_cnn"}, "wanted a uint8 image leaf"),
        ({"action": NESTED}, "action space: got"),
    ],
)
def test_a_spec_that_no_network_supports_is_a_user_error(choices, message) -> None:
    with pytest.raises(UserError) as caught:
        PolicySpec(**{"observation": VECTOR, "action": DISCRETE, **choices})
    assert message in str(caught.value)


def test_an_image_that_the_convolutions_cannot_take_is_a_user_error() -> None:
    small = SpaceSpec((Leaf("eye", "box", "uint8", (3, 35, 80), low=(0.0,), high=(255.0,)),))
    with pytest.raises(UserError, match="at least 36 x 36 pixels"):
        build(PolicySpec(observation=small, action=DISCRETE, network="nature_cnn"), seed=0, device=CPU)


def test_an_mlp_rollout_imports_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys; import spark_rl.policies.acting, spark_rl.policies.spec, spark_rl.policies.weights;"
        "print([m for m in ('torch', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
