"""Spec and weights -> a policy that acts. One table of kinds; a kind's module is imported when it is asked for.

So a worker imports torch for a CNN only, and nothing that its policy does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np

from spark_rl.policies.acting import ActingPolicy
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.weights import decode

_ACTING = {
    "mlp": "spark_rl.policies.acting:MLPActing",
    "recurrent": "spark_rl.policies.recurrent:RecurrentActing",
    "cnn": "spark_rl.policies.acting_torch:CNNActing",
    "q": "spark_rl.policies.acting_q:QMLPActing",
    "q_cnn": "spark_rl.policies.acting_q_torch:QCNNActing",
    "squashed": "spark_rl.policies.squashed:SquashedActing",
    "deterministic": "spark_rl.policies.squashed:DeterministicActing",
    "tabular": "spark_rl.policies.tabular:TabularActing",
    "uniform": "spark_rl.policies.fixed:UniformActing",
    "scripted": "spark_rl.policies.fixed:ScriptedActing",
}


def load_acting(spec: PolicySpec, weights: bytes) -> ActingPolicy:
    """The policy that `weights` (safetensors, see `weights.encode`) hold."""
    module, _, name = _ACTING[_form(spec)].partition(":")
    make: Callable[[PolicySpec, dict[str, np.ndarray]], ActingPolicy] = getattr(import_module(module), name)
    return make(spec, decode(weights))


def _form(spec: PolicySpec) -> str:
    is_cnn = spec.network == "nature_cnn"
    if spec.kind == "actor_critic":
        return "cnn" if is_cnn else "recurrent" if spec.recurrent else "mlp"
    return "q_cnn" if spec.kind == "q" and is_cnn else spec.kind
