"""Action-value policies: numpy against torch and against plain modules, exploration's probabilities, and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from spark_rl.errors import RunError, UserError
from spark_rl.policies import weights
from spark_rl.policies.acting_q import QActing
from spark_rl.policies.features import Features
from spark_rl.policies.load import load_acting
from spark_rl.policies.q_layers import Head
from spark_rl.policies.q_networks import QNetwork
from spark_rl.policies.spec import PolicySpec
from spark_rl.schema.spaces import Leaf, SpaceSpec

CPU = torch.device("cpu")
N, A = 32, 3
VECTOR = SpaceSpec((Leaf("", "box", "float32", (5,), low=(-1.0,), high=(1.0,)),))
IMAGE = SpaceSpec(
    (
        Leaf("frame", "box", "uint8", (2, 36, 36), low=(0.0,), high=(255.0,)),
        Leaf("gear", "discrete", "int64", (), n=(4,), start=(1,)),
    ),
    structure="dict",
)
ACTION = SpaceSpec((Leaf("", "discrete", "int64", (), n=(A,), start=(2,)),))
HEADS = [
    Head(A),
    Head(A, 5),
    Head(A, dueling=True),
    Head(A, noisy=True),
    Head(A, 5, dueling=True, noisy=True),
]
SPECS = {
    "mlp": PolicySpec(observation=VECTOR, action=ACTION, kind="q", hidden=(16, 8), activation="relu"),
    "normalised": PolicySpec(observation=VECTOR, action=ACTION, kind="q", hidden=(16,), normalize_observation=True),
    "linear": PolicySpec(observation=VECTOR, action=ACTION, kind="q", hidden=()),
    "cnn": PolicySpec(observation=IMAGE, action=ACTION, kind="q", network="nature_cnn", hidden=(16,)),
}


def observe(spec: PolicySpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    if spec.network == "mlp":
        return {"": rng.standard_normal((N, 5)).astype(np.float32)}
    return {"frame": rng.integers(0, 256, (N, 2, 36, 36)).astype(np.uint8), "gear": rng.integers(1, 5, N)}


def made(spec: PolicySpec, head: Head, **extra: float) -> tuple[QNetwork, dict[str, np.ndarray], QActing]:
    network = QNetwork(spec, head, seed=1, device=CPU)
    network.flat.add_(torch.randn(network.flat.shape, generator=torch.Generator().manual_seed(2)), alpha=0.1)
    network.refresh()
    tensors = network.weights()
    if spec.normalize_observation:
        tensors |= {"normalizer.mean": np.full(5, 0.3), "normalizer.var": np.full(5, 4.0)}
    tensors |= {name.replace("_", "."): np.asarray(value) for name, value in extra.items()}
    acting = load_acting(spec, weights.encode(tensors))
    assert isinstance(acting, QActing)
    return network, tensors, acting


def inputs(spec: PolicySpec, observation: dict[str, np.ndarray]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    features = Features(spec.observation, images=spec.network == "nature_cnn")
    flat = features.encode(observation)
    if spec.normalize_observation:
        flat = ((flat - 0.3) / 2.0).astype(np.float32)
    return torch.from_numpy(flat), [torch.from_numpy(image) for image in features.images(observation)]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("head", HEADS)
def test_acting_equals_the_learner(name: str, head: Head) -> None:
    spec = SPECS[name]
    network, _, acting = made(spec, head)
    network.perturb(torch.zeros(network.noise_size))
    want = network(*inputs(spec, observe(spec)))
    assert want.shape == (N, A, head.num_atoms) and want.std() > 1e-3
    assert_allclose(acting.scores(observe(spec), None), want, atol=1e-5)
    act = acting.act_greedy(observe(spec), None)
    assert_array_equal(act.action, want.mean(2).argmax(1) + 2)


def test_dueling_takes_the_mean_advantage_off() -> None:
    spec = SPECS["mlp"]
    network, tensors, _ = made(spec, Head(A, dueling=True))
    x, _ = inputs(spec, observe(spec))
    w = {name: torch.from_numpy(array) for name, array in tensors.items()}

    def layer(name: str, y: torch.Tensor) -> torch.Tensor:
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    shared = layer("q.0", x).relu()
    value = layer("value.head", layer("value.hidden", shared).relu())
    advantage = layer("advantage.head", layer("advantage.hidden", shared).relu())
    want = value + advantage - advantage.mean(1, keepdim=True)
    assert_allclose(network(x, [])[:, :, 0], want, atol=1e-5)


def slow_noisy(network: QNetwork, normal: torch.Tensor, flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A noisy MLP weight by weight: w = mu + sigma f(e_in) f(e_out), b = mu + sigma f(e_out)."""
    named = network.views(flat)
    first = 0
    for layer in network.layers.all:
        noise = normal[first : first + layer.inputs + layer.outputs]
        first += layer.inputs + layer.outputs
        f = noise.sign() * noise.abs().sqrt()
        e_in, e_out = f[: layer.inputs], f[layer.inputs :]
        w = named[f"{layer.name}.weight"] + named[f"{layer.name}.weight_noise"] * torch.outer(e_out, e_in)
        b = named[f"{layer.name}.bias"] + named[f"{layer.name}.bias_noise"] * e_out
        x = x @ w.T + b
        if layer.name != "q.head":
            x = x.relu()
    return x


def test_noisy_layers_and_their_gradient_equal_the_slow_ones() -> None:
    spec = SPECS["mlp"]
    network, _, _ = made(spec, Head(A, noisy=True))
    normal = torch.randn(network.noise_size, generator=torch.Generator().manual_seed(3))
    network.perturb(normal)
    x, _ = inputs(spec, observe(spec))
    scores = network(x, [], learn=True)
    flat = network.flat.clone().requires_grad_()
    want = slow_noisy(network, normal, flat, x)
    assert_allclose(scores.detach()[:, :, 0], want.detach(), atol=1e-5)
    slope = torch.randn(N, A, generator=torch.Generator().manual_seed(4))
    (gradient,) = torch.autograd.grad((want * slope).sum(), flat)
    got = network.backward(scores, slope[:, :, None])
    assert gradient[len(gradient) // 2 :].abs().max() > 1e-2
    assert_allclose(got, gradient, atol=1e-4)
    network.flat.add_(0.1)
    assert_allclose(network(x, [])[:, :, 0], want.detach(), atol=1e-5)  # until it is told
    network.refresh()
    assert_allclose(network(x, [])[:, :, 0], slow_noisy(network, normal, network.flat, x), atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_gradient_of_exact_layers_is_autograds(name: str) -> None:
    spec = SPECS[name]
    network, _, _ = made(spec, Head(A, 5, dueling=True))
    before = network.flat.clone()
    scores = network(*inputs(spec, observe(spec)), learn=True)
    gradient = network.backward(scores, torch.ones_like(scores))
    step = 1e-3 * gradient / gradient.norm()
    rise = network(*inputs(spec, observe(spec))).sum().item()
    network.flat.add_(step)
    rise = network(*inputs(spec, observe(spec))).sum().item() - rise
    assert rise == pytest.approx(1e-3 * gradient.norm().item(), rel=0.05)
    assert torch.equal(before.add(step), network.flat)


def test_the_numpy_side_draws_noise_of_the_same_distribution() -> None:
    spec = SPECS["mlp"]
    network, _, acting = made(spec, Head(A, noisy=True))
    one = {"": np.repeat(observe(spec)[""][:1], 4000, axis=0)}
    got = acting.scores(one, np.random.default_rng(0))[:, :, 0]
    rng = torch.Generator().manual_seed(0)
    x, _ = inputs(spec, {"": one[""][:1]})
    drawn = []
    for _ in range(4000):
        network.perturb(torch.randn(network.noise_size, generator=rng))
        drawn.append(network(x, [])[0, :, 0])
    want = torch.stack(drawn).numpy()
    assert want.std(0).min() > 0.05
    assert_allclose(got.mean(0), want.mean(0), atol=6 * want.std() / np.sqrt(4000))
    assert_allclose(got.std(0), want.std(0), rtol=0.1)


def test_epsilon_is_what_is_stored_and_what_happens() -> None:
    spec = SPECS["mlp"]
    _, _, acting = made(spec, Head(A), explore_epsilon=0.3)
    observation = {"": np.repeat(observe(spec)[""], 300, axis=0)}
    greedy = acting.act_greedy(observation, None).action
    act = acting.act(observation, None, np.random.default_rng(0))
    same = act.action == greedy
    assert_allclose(np.exp(act.log_prob), np.where(same, 0.7 + 0.1, 0.1), rtol=1e-6)
    assert act.log_prob.dtype == np.float32 and set(np.unique(act.action)) == {2, 3, 4}
    assert same.mean() == pytest.approx(0.8, abs=0.02)
    for choice in (2, 3, 4):
        share = np.mean(act.action[greedy != choice] == choice) if (greedy != choice).any() else 0.1
        assert share == pytest.approx(0.1, abs=0.02)
    assert_array_equal(acting.act(observation, None, np.random.default_rng(0)).action, act.action)


def test_the_probability_of_a_noisy_policy_is_unknown() -> None:
    spec = SPECS["mlp"]
    _, _, acting = made(spec, Head(A, noisy=True))
    act = acting.act(observe(spec), None, np.random.default_rng(0))
    assert np.isnan(act.log_prob).all()
    assert (acting.act(observe(spec), None, np.random.default_rng(1)).action != act.action).any()


def test_every_group_has_its_rung_of_the_ladder() -> None:
    spec = SPECS["mlp"]
    _, _, acting = made(spec, Head(A), explore_epsilon=0.4, explore_ladder=7.0)
    rungs = [acting.in_group(g, 8)._epsilon for g in range(8)]
    assert_allclose(rungs, [0.4 ** (1 + 7 * g / 7) for g in range(8)])
    assert acting._epsilon == 0.4
    _, _, plain = made(spec, Head(A), explore_epsilon=0.4)
    assert plain.in_group(3, 8) is plain


def test_a_categorical_head_acts_by_its_mean() -> None:
    spec = SPECS["mlp"]
    network, tensors, _ = made(spec, Head(A, 5))
    support = np.asarray([-1.0, 0.0, 1.0, 2.0, 50.0], np.float32)
    acting = load_acting(spec, weights.encode(tensors | {"support": support}))
    scores = network(*inputs(spec, observe(spec)))
    want = torch.softmax(scores, 2) @ torch.from_numpy(support)
    assert isinstance(acting, QActing)
    assert_allclose(acting.values(observe(spec), None), want, rtol=1e-5)
    assert_array_equal(acting.act_greedy(observe(spec), None).action, want.argmax(1) + 2)


def test_a_box_of_actions_and_foreign_weights_are_refused() -> None:
    box = SpaceSpec((Leaf("", "box", "float32", (2,), low=(-1.0,), high=(1.0,)),))
    spec = PolicySpec(observation=VECTOR, action=box, kind="q")
    with pytest.raises(UserError, match="action space: got box; wanted Discrete"):
        load_acting(spec, weights.encode({"q.head.weight": np.zeros((2, 2), np.float32)}))
    network, _, _ = made(SPECS["mlp"], Head(A))
    with pytest.raises(RunError, match="q.0.weight"):
        network.load_weights({})
