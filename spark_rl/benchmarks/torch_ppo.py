"""PPO's update as a single file writes it: eager torch, autograd, torch.optim.Adam. The floor of `benchmark update`.

After CleanRL's ppo.py and ppo_atari.py (Huang et al. 2022, github.com/vwxyzjn/cleanrl), without what they compute for
their logs only. T env steps, B environments, N = T * B rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from spark_rl.algorithms.ppo_config import PPOConfig


@dataclass(slots=True)
class Storage:
    """What the rollout left in memory; the values were computed while acting."""

    observation: Tensor  # [T, B, *shape]
    action: Tensor  # int64 [T, B]
    log_prob: Tensor  # [T, B]
    reward: Tensor  # [T, B]
    done: Tensor  # [T, B]: 1 where the episode ended with the step
    value: Tensor  # [T, B]
    next_value: Tensor  # [B], of the observation after the last step


class MLPAgent(nn.Module):
    """Two towers of tanh layers."""

    def __init__(self, size: int, actions: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.actor, self.critic = _tower(size, hidden, actions), _tower(size, hidden, 1)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, actions] and values [N]."""
        return self.actor(observation), self.critic(observation).squeeze(1)


class CNNAgent(nn.Module):
    """The Nature CNN with two heads, for [4, 84, 84] pixels."""

    def __init__(self, actions: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU(),
            nn.Flatten(),
        ]  # fmt: skip
        size = 64 * 7 * 7
        for units in hidden:
            layers += [nn.Linear(size, units), nn.ReLU()]
            size = units
        self.network = nn.Sequential(*layers)
        self.actor, self.critic = nn.Linear(size, actions), nn.Linear(size, 1)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, actions] and values [N]."""
        hidden = self.network(observation / 255.0)
        return self.actor(hidden), self.critic(hidden).squeeze(1)


def _tower(size: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(size, units), nn.Tanh()]
        size = units
    return nn.Sequential(*layers, nn.Linear(size, outputs))


def update(agent: nn.Module, optimizer: torch.optim.Optimizer, stored: Storage, config: PPOConfig) -> int:
    """All epochs; the gradient steps."""
    advantages = _gae(stored, config)
    returns = advantages + stored.value
    b_obs = stored.observation.flatten(0, 1)
    b_actions, b_logprobs = stored.action.flatten(), stored.log_prob.flatten()
    b_advantages, b_returns = advantages.flatten(), returns.flatten()
    indices = np.arange(len(b_actions))
    steps = 0
    for _ in range(config.num_epochs):
        np.random.shuffle(indices)  # noqa: NPY002 (as it is there)
        for start in range(0, len(indices), config.minibatch_size):
            rows = torch.from_numpy(indices[start : start + config.minibatch_size]).to(b_obs.device)
            logits, value = agent(b_obs[rows])
            distribution = Categorical(logits=logits)
            ratio = (distribution.log_prob(b_actions[rows]) - b_logprobs[rows]).exp()
            advantage = b_advantages[rows]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            clipped = torch.clamp(ratio, 1 - config.clip, 1 + config.clip)
            policy_loss = torch.max(-advantage * ratio, -advantage * clipped).mean()
            value_loss = ((value - b_returns[rows]) ** 2).mean()
            entropy = distribution.entropy().mean()
            loss = policy_loss - config.entropy_coef * entropy + config.value_coef * value_loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), config.max_grad_norm)
            optimizer.step()
            steps += 1
    if b_obs.is_cuda:
        torch.cuda.synchronize()
    return steps


@torch.no_grad()
def _gae(stored: Storage, config: PPOConfig) -> Tensor:
    advantages = torch.zeros_like(stored.reward)
    running = torch.zeros_like(stored.next_value)
    for t in reversed(range(len(stored.reward))):
        next_value = stored.next_value if t == len(stored.reward) - 1 else stored.value[t + 1]
        nonterminal = 1.0 - stored.done[t]
        delta = stored.reward[t] + config.discount * next_value * nonterminal - stored.value[t]
        running = delta + config.discount * config.gae_lambda * nonterminal * running
        advantages[t] = running
    return advantages
