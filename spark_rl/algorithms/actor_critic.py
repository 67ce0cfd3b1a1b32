"""What every learner of an actor and a critic has: network, statistics, values of the batch, state.

N rows, M true successors at ends, P distribution parameters a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from spark_rl import seeding
from spark_rl.algorithms.minibatches import Rows, as_tensor
from spark_rl.algorithms.normalizers import RewardScaler, RunningMoments
from spark_rl.algorithms.sequences import Sequences, single_steps
from spark_rl.data.batch import Batch
from spark_rl.data.sequences import Fragments, fragments, successor_values
from spark_rl.errors import RunError
from spark_rl.policies.build import build
from spark_rl.policies.distributions import Distribution, family, masked
from spark_rl.policies.features import Normalizer
from spark_rl.policies.networks import Output, features_of
from spark_rl.policies.sampling import action_mask
from spark_rl.policies.spec import PolicySpec

FORWARD_ROWS = 4096  # rows of one forward pass without gradient; bounds the memory that images take


class Optimizer(Protocol):
    """What moves the network's flat vector."""

    def step(self, gradient: Tensor, *, learning_rate: float) -> None: ...

    def state(self) -> dict[str, np.ndarray]: ...

    def load(self, state: Mapping[str, np.ndarray]) -> None: ...


class Config(Protocol):
    """The keys that every actor-critic's config has."""

    @property
    def discount(self) -> float: ...

    @property
    def normalize_return(self) -> bool: ...

    @property
    def max_grad_norm(self) -> float: ...

    @property
    def sequence_length(self) -> int: ...


@dataclass(slots=True)
class Steps:
    """What targets are made of: N rows in the order of time, environment by environment."""

    layout: Fragments
    reward: np.ndarray  # float64 [N], scaled where the config says so
    value: np.ndarray  # float64 [N], V before the update
    next_value: np.ndarray  # float64 [N], V of the true successor
    terminated: np.ndarray  # bool [N]
    truncated: np.ndarray  # bool [N]
    cut: np.ndarray  # bool [N]: the next row is not the successor, though the episode did not terminate
    log_ratio: np.ndarray | None = None  # float64 [N], log pi(a|s) of now less that of the policy that acted

    def grid(self, rows: np.ndarray) -> Tensor:
        """[N] -> [T, B] on the CPU, padded with zero or False."""
        return torch.from_numpy(self.layout.pack(rows))

    def rows(self, grid: Tensor) -> np.ndarray:
        """Inverse of `grid`."""
        return self.layout.unpack(grid.numpy())


class ActorCritic:
    """The learner's state: network, optimizer, and the running statistics of observations and returns.

    An algorithm says what advantages are (`targets`) and how rows move the weights (`learn`). The same seed, config
    and batches give the same weights to the bit, on one device type and thread count.
    """

    corrects_lag = False  # whether `targets` asks for the log ratios, which cost a pass over the rows

    def __init__(
        self,
        config: Config,
        policy: PolicySpec,
        *,
        device: torch.device | str,
        seed: int,
        num_envs: int,
        mixed_precision: bool = False,
    ) -> None:
        self.policy, self.device = policy, torch.device(device)
        self.seed = seed
        self._settings = config
        self._mixed_precision = mixed_precision
        self._features = features_of(policy)
        self.family = family(policy.action.only)
        self.network = build(policy, seed=seeding.integer(seed, seeding.INIT), device=self.device)
        self.optimizer = self.make_optimizer(self.network.flat)
        self._moments = RunningMoments(self._features.size)
        self._scaler = RewardScaler(num_envs, discount=config.discount)

    def make_optimizer(self, flat: Tensor) -> Optimizer:
        """The optimizer of the flat vector."""
        raise NotImplementedError

    def targets(self, steps: Steps) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and value targets of the batch's rows, float64 [N] each."""
        raise NotImplementedError

    def learn(self, rows: Rows, rng: np.random.Generator, progress: float) -> dict[str, float]:
        """Moves the weights; returns metrics."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, batch: Batch, *, iteration: int, progress: float) -> dict[str, float]:
        """Learns from the rows of one iteration; returns metrics named in `metrics.NAMES`.

        `progress` in [0, 1] is the share of the run's env steps taken before this iteration; schedules follow it.
        Observations are normalised with the statistics that the acting policy had; this batch enters them after.
        """
        raw = self._features.encode(batch.observation)
        rows, facts = self._rows(batch, raw)
        rng = seeding.generator(self.seed, seeding.LEARNER, iteration)
        facts.update(self.learn(rows, rng, progress))
        if self.policy.normalize_observation:
            self._moments.merge(raw)
        return facts

    def weights(self) -> dict[str, np.ndarray]:
        """What the acting side loads: the network's parameters and, where it has one, the observation normaliser."""
        result = self.network.weights()
        if self.policy.normalize_observation:
            indicators = ~self._features.normalized
            statistics = self._moments.state()
            statistics["mean"][indicators], statistics["var"][indicators] = 0.0, 1.0
            result.update({f"normalizer.{name}": array for name, array in statistics.items()})
        return result

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that the next update depends on, as named arrays."""
        result = dict(self.network.weights())
        result.update({f"optimizer.{name}": array for name, array in self.optimizer.state().items()})
        result.update({f"observation.{name}": array for name, array in self._moments.state().items()})
        result.update({f"return.{name}": array for name, array in self._scaler.state().items()})
        return result

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; RunError where the state is that of another policy."""
        self.network.load_weights(state)
        self.optimizer.load({name: state[f"optimizer.{name}"] for name in self.optimizer.state()})
        self._moments.load({name: state[f"observation.{name}"] for name in self._moments.state()})
        self._scaler.load({name: state[f"return.{name}"] for name in self._scaler.state()})

    def forward(self, rows: Rows) -> Output:
        """The network on one minibatch, ready for `descend`."""
        with self._autocast():
            return self.network(rows.features, rows.images, memory=rows.memory, learn=True)

    def allowed(self, output: Output, rows: Rows) -> Tensor:
        """The output's distribution parameters [N, P] under which masked choices have probability 0."""
        return output.params if rows.mask is None else masked(output.params, rows.mask)

    def descend(self, gradient: Tensor, *, learning_rate: float) -> Tensor:
        """One optimizer step with the gradient shortened to `max_grad_norm`; its norm before, []."""
        norm = torch.linalg.vector_norm(gradient)
        gradient.mul_((self._settings.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        self.optimizer.step(gradient, learning_rate=learning_rate)
        return norm

    def actions(self, params: Tensor) -> Distribution:
        """The action distributions with these parameters [N, P]."""
        return self.family(params, self.network.views(self.network.flat).get("log_std"))

    def _rows(self, batch: Batch, raw: np.ndarray) -> tuple[Rows, dict[str, float]]:
        """The batch as tensors on the device, with advantages and value targets."""
        if bool(self.policy.recurrent) != (batch.state is not None):
            raise RunError("a batch's states", "none" if batch.state is None else "some",
                           "one a row of a recurrent policy, and only there",
                           "these rows belong to another policy")  # fmt: skip
        final = self._features.encode(batch.final_observation)
        features = np.concatenate([raw, final])
        if self.policy.normalize_observation:
            statistics = self.weights()
            features = Normalizer(statistics["normalizer.mean"], statistics["normalizer.var"])(features)
        inputs = as_tensor(features, self.device)
        images = [
            as_tensor(np.concatenate(pair), self.device)
            for pair in zip(
                self._features.images(batch.observation), self._features.images(batch.final_observation), strict=True
            )
        ]
        num_rows = batch.num_rows
        state = None if batch.state is None else as_tensor(batch.state, self.device)
        params, value, final_value = self._evaluate(inputs, images, state, batch.last_row)
        mask = self._mask(batch)
        target_action = as_tensor(self.family.target(batch.action, batch.raw_action), self.device)
        log_prob = as_tensor(batch.action_log_prob, self.device)
        steps = self._steps(batch, value.astype(np.float64), final_value.astype(np.float64))
        if self.corrects_lag:
            ratio = self.actions(params if mask is None else masked(params, mask)).log_prob(target_action) - log_prob
            steps.log_ratio = ratio.cpu().numpy().astype(np.float64)
        advantage, target = self.targets(steps)
        spread = target.var()
        facts = {
            "learner/explained_variance": float(1.0 - (target - value).var() / spread) if spread > 0.0 else 0.0,
            "learner/advantage_std": float(advantage.std()),
        }
        rows = Rows(
            features=inputs[:num_rows],
            images=[image[:num_rows] for image in images],
            target_action=target_action,
            log_prob=log_prob,
            advantage=as_tensor(advantage.astype(np.float32), self.device),
            value=as_tensor(value.astype(np.float32), self.device),
            value_target=as_tensor(target.astype(np.float32), self.device),
            mask=mask,
            sequences=None if state is None else Sequences(batch, state, self._settings.sequence_length),
        )
        return rows, facts

    def _mask(self, batch: Batch) -> Tensor | None:
        """The choices that were allowed, bool [N, P]; None where all always are."""
        if not self.policy.action_mask:
            return None
        return as_tensor(action_mask(batch.observation[self.policy.action_mask]), self.device)

    def _evaluate(
        self, inputs: Tensor, images: list[Tensor], state: Tensor | None, last_row: np.ndarray
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Distribution parameters of all rows [N, P], their values [N], and those of the true successors [M]."""
        num_rows = len(inputs) - len(last_row)
        if state is None:
            output = self._pass(inputs, images, None)
            value = output.value.cpu().numpy()
            return output.params[:num_rows], value[:num_rows], value[num_rows:]
        # The successor of a row is seen with what is remembered after it, which one step from its stored state gives.
        rows = self._pass(inputs[:num_rows], images, state)
        assert rows.state is not None
        final = self._pass(inputs[num_rows:], images, rows.state[torch.from_numpy(last_row).to(self.device)])
        return rows.params, rows.value.cpu().numpy(), final.value.cpu().numpy()

    def _pass(self, inputs: Tensor, images: list[Tensor], state: Tensor | None) -> Output:
        """Forward without gradient, in pieces; every row is a sequence of its own."""
        outputs = []
        with self._autocast():
            for first in range(0, len(inputs), FORWARD_ROWS):
                piece = slice(first, first + FORWARD_ROWS)
                memory = None if state is None else single_steps(state[piece])
                outputs.append(self.network(inputs[piece], [image[piece] for image in images], memory=memory))
        return Output(
            torch.cat([output.params for output in outputs]),
            None,
            torch.cat([output.value for output in outputs]),
            state=None if state is None else torch.cat([o.state for o in outputs if o.state is not None]),
        )

    def _steps(self, batch: Batch, value: np.ndarray, final_value: np.ndarray) -> Steps:
        """The rows as `targets` wants them."""
        layout = fragments(batch.env_index)
        last = np.zeros(batch.num_rows, bool)
        last[batch.last_row] = True
        reward = batch.reward
        if self._settings.normalize_return:
            self._scaler.update(reward, batch.terminated | batch.truncated, layout)
            reward = self._scaler.scale(reward)
        # The next row is a true successor unless a final observation was stored: at a time limit or for another reason.
        return Steps(
            layout=layout,
            reward=reward,
            value=value,
            next_value=successor_values(value, batch.last_row, final_value),
            terminated=batch.terminated,
            truncated=batch.truncated,
            cut=last & ~batch.terminated,
        )

    def _autocast(self) -> Any:
        if self._mixed_precision:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()
