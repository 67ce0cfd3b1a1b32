"""What SAC, TD3 and DDPG share: the window, the critics with their targets, and the loop over minibatches.

N rows of a minibatch, D action components, E critics. Actions are in [-1, 1] here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from spark_rl import seeding
from spark_rl.algorithms.adam import FlatAdam
from spark_rl.algorithms.off_policy import Window, rows_at_once
from spark_rl.data.batch import Batch
from spark_rl.errors import UserError
from spark_rl.losses.actor_critic import critics_loss, critics_slope
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.squashed import Box
from spark_rl.policies.towers import Towers

CRITIC_HEAD_GAIN = 1.0
ACTOR_HEAD_GAIN = 0.01  # first actions near the centre of the box, where tanh has its slope


class ContinuousConfig(BaseModel):
    """Keys that SAC, TD3 and DDPG share. Defaults are stable-baselines3's, where nothing else is said."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    policy_kind: ClassVar[str]

    learning_rate: float = Field(3e-4, gt=0.0, description="Adam's step size, of actor, critics and temperature")
    discount: float = Field(0.99, ge=0.0, le=1.0, description="gamma, per env step")
    batch_size: int = Field(256, ge=1, description="rows of a gradient step")
    replay_capacity: int = Field(1_000_000, ge=1, description="rows; the window is the whole iterations that fit")
    replay_ratio: float = Field(1.0, gt=0.0, description="gradient steps per env step; x batch_size: samples a row")
    learning_starts: int = Field(100, ge=0, description="env steps before the first gradient step, taken uniformly")
    target_share: float = Field(0.005, gt=0.0, le=1.0, description="tau: how far targets move at a gradient step")
    n_steps: int = Field(1, ge=1, description="rewards summed before the target bootstraps")
    adam_eps: float = Field(1e-8, gt=0.0, description="Adam's epsilon")


@dataclass(slots=True)
class Minibatch:
    """N transitions on the device."""

    features: Tensor  # float32 [N, F]
    action: Tensor  # float32 [N, D], in [-1, 1]
    reward: Tensor  # float32 [N]
    bootstrap: Tensor  # float32 [N], see losses.actor_critic
    next_features: Tensor
    noise: Tensor  # float32 [2, N, D], standard normal: for the targets' actions and the actor's


class ContinuousLearner:
    """Window, actor, critics and target critics; a subclass makes the gradient steps.

    The same seed, config and batches give the same weights to the bit, on one device type and thread count.
    """

    def __init__(
        self,
        config: ContinuousConfig,
        policy: PolicySpec,
        *,
        outputs: int,
        critics: int,
        device: torch.device,
        seed: int,
    ) -> None:
        if policy.network != "mlp" or policy.recurrent:
            raise UserError("policy.network", f"{policy.network!r}, recurrent = {policy.recurrent!r}",
                            "'mlp' without memory", "use ppo for pictures and memory")  # fmt: skip
        self.policy, self.device = policy, device
        self._shared, self._seed = config, seed
        self._box = Box(policy.action.only)
        self._window = Window(policy, capacity=config.replay_capacity, prioritized=False,
                              replay_ratio=config.replay_ratio, learning_starts=config.learning_starts,
                              device=device)  # fmt: skip
        size = self._window.features.size
        names = tuple(f"critic.{e}" for e in range(critics))

        def towers(names: tuple[str, ...], inputs: int, outputs: int, gain: float, place: int) -> Towers:
            return Towers(names, (inputs, *policy.hidden, outputs), tanh=policy.activation == "tanh", head_gain=gain,
                          seed=seeding.integer(seed, seeding.INIT, place), device=device)  # fmt: skip

        self.actor = towers(("actor",), size, outputs * self._box.size, ACTOR_HEAD_GAIN, 0)
        self.critics, self.target = (
            towers(names, size + self._box.size, 1, CRITIC_HEAD_GAIN, 1) for _ in range(2)
        )  # fmt: skip
        self._optimizers = {
            name: FlatAdam(network.flat, eps=config.adam_eps)
            for name, network in (("actor", self.actor), ("critics", self.critics))
        }

    @torch.no_grad()
    def update(self, batch: Batch, *, iteration: int, progress: float) -> dict[str, float]:
        """Takes the rows into the window and makes the gradient steps that they allow; metrics."""
        num_steps = self._window.append(batch, iteration)
        rng = seeding.generator(self._seed, seeding.LEARNER, iteration)
        first = self._window.gradient_steps - num_steps
        facts: dict[str, Tensor] = {}
        for step, part in enumerate(self._draw(rng, num_steps)):
            for name, value in self._step(part, first + step).items():
                facts[name] = facts.get(name, torch.zeros((), device=self.device)) + value
        self._window.finish(batch)
        result = {
            "learner/gradient_steps": float(num_steps),
            "learner/replay_rows": float(self._window.replay.num_rows),
        }
        # The actor of TD3 moves at some steps only; whatever is not about it is there at all of them.
        counts = {name: self._actor_steps(first, num_steps) if name == "actor_loss" else num_steps for name in facts}
        return result | {f"learner/{name}": value.item() / counts[name] for name, value in facts.items()}

    def weights(self) -> dict[str, np.ndarray]:
        """What the acting side loads: the actor, whether it acts uniformly still, and the observation normaliser."""
        warm_up = np.asarray(float(self._window.env_steps < self._shared.learning_starts))
        return self.actor.weights() | self._window.statistics() | {"explore.uniform": warm_up}

    @property
    def window(self) -> list[int]:
        """Iterations that the next update may draw from."""
        return self._window.iterations

    def recall(self, batch: Batch, *, iteration: int) -> None:
        """Takes in an iteration of the window again, after `load_state_dict`."""
        self._window.recall(batch, iteration)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on but the rows, which the dataset has."""
        result: dict[str, Any] = self.actor.weights() | self.critics.weights()
        result |= {f"target.{name}": array for name, array in self.target.weights().items()}
        for which, optimizer in self._optimizers.items():
            result |= {f"optimizer.{which}.{name}": array for name, array in optimizer.state().items()}
        return result | {f"window.{name}": value for name, value in self._window.state().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; RunError where the state is that of another policy. `recall` comes next."""

        def under(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        self.actor.load_weights(state)
        self.critics.load_weights(state)
        self.target.load_weights(under("target."))
        for which, optimizer in self._optimizers.items():
            optimizer.load(under(f"optimizer.{which}."))
        self._window.load(under("window."))

    def _step(self, part: Minibatch, step: int) -> dict[str, Tensor]:
        """The gradient step number `step` of the run; numbers of it, by the ends of their metrics' names."""
        raise NotImplementedError

    def _actor_steps(self, first: int, num_steps: int) -> int:
        """How many of the gradient steps from `first` on move the actor."""
        return num_steps

    def _learn_critics(self, part: Minibatch, target: Tensor) -> dict[str, Tensor]:
        """One step of all critics towards the same target [N]."""
        value = self.critics(torch.cat([part.features, part.action], dim=1), learn=True)
        said = value.detach().squeeze(2)
        gradient = self.critics.gradient(value, critics_slope(said, target).unsqueeze(2))
        self._optimizers["critics"].step(gradient, learning_rate=self._shared.learning_rate)
        return {"critic_loss": critics_loss(said, target), "value_mean": said.mean()}

    def _judge(self, features: Tensor, action: Tensor, critics: Towers, *, learn: bool = False) -> Tensor:
        """Every critic's value of actions [N, D]: [E, N]."""
        return critics(torch.cat([features, action], dim=1), learn=learn).squeeze(2)

    def _follow(self) -> None:
        """Target critics move towards the critics."""
        self.target.flat.lerp_(self.critics.flat, self._shared.target_share)

    def _draw(self, rng: np.random.Generator, num_steps: int) -> Iterator[Minibatch]:
        """The iteration's minibatches, gathered many at a time."""
        config, window = self._shared, self._window
        at_once = rows_at_once(self.policy, config.batch_size)
        for done in range(0, num_steps, at_once):
            num = min(at_once, num_steps - done)
            place = window.replay.draw(rng, num * config.batch_size)
            sample = window.replay.sample(place, num_steps=config.n_steps, discount=config.discount)
            noise = rng.standard_normal((num, 2, config.batch_size, self._box.size), dtype=np.float32)
            columns = [
                window.inputs(sample.observation)[0],
                window.tensor(self._box.to_unit(sample.action)),
                window.tensor(sample.reward.astype(np.float32)),
                window.tensor(sample.bootstrap.astype(np.float32)),
                window.inputs(sample.next_observation)[0],
            ]
            parts = zip(*(column.chunk(num) for column in columns), strict=True)
            for (x, action, reward, bootstrap, next_x), normal in zip(parts, window.tensor(noise), strict=True):
                yield Minibatch(x, action, reward, bootstrap, next_x, normal)
