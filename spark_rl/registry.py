"""What can be named in a config, and where it lives. One line an algorithm."""

from importlib import import_module
from typing import Any

from spark_rl.errors import UserError

ALGORITHMS = {
    "a2c": "spark_rl.algorithms.a2c:A2C",
    "ddpg": "spark_rl.algorithms.td3:DDPG",
    "dqn": "spark_rl.algorithms.dqn:DQN",
    "double_q_learning": "spark_rl.algorithms.tabular:Tabular",
    "expected_sarsa": "spark_rl.algorithms.tabular:Tabular",
    "impala": "spark_rl.algorithms.impala:IMPALA",
    "fitted_q": "spark_rl.algorithms.fitted_q:FittedQ",
    "ppo": "spark_rl.algorithms.ppo:PPO",
    "q_learning": "spark_rl.algorithms.tabular:Tabular",
    "reinforce": "spark_rl.algorithms.reinforce:Reinforce",
    "sac": "spark_rl.algorithms.sac:SAC",
    "sarsa": "spark_rl.algorithms.tabular:Tabular",
    "td3": "spark_rl.algorithms.td3:TD3",
}

# Sections [algorithm] that live in a module without torch: a mistake in a config is told before torch is imported, and
# torch is imported while the executors' workers start. An algorithm that is not here has its Config in its own file.
CONFIGS = {
    "a2c": "spark_rl.algorithms.policy_gradient_config:A2CConfig",
    "dqn": "spark_rl.algorithms.dqn_config:DQNConfig",
    "impala": "spark_rl.algorithms.policy_gradient_config:ImpalaConfig",
    "ppo": "spark_rl.algorithms.ppo_config:PPOConfig",
    "reinforce": "spark_rl.algorithms.policy_gradient_config:ReinforceConfig",
}


def load(name: str) -> Any:
    """The algorithm class of that name; its module is imported now, and not before.

    Raises UserError listing the known names.
    """
    if name not in list(ALGORITHMS):  # a list, because what a file calls a name may not be hashable
        raise UserError("algorithm.name", repr(name), f"one of: {', '.join(sorted(ALGORITHMS))}", "correct the name")
    return _attribute(ALGORITHMS[name])


def config_model(name: str) -> Any:
    """The pydantic model of the algorithm's section; raises UserError as `load` does."""
    return _attribute(CONFIGS[name]) if name in list(CONFIGS) else load(name).Config


def _attribute(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
