"""A spec -> the torch network with its initial weights."""

from __future__ import annotations

import torch

from spark_rl.policies.cnn import NatureCNN
from spark_rl.policies.memory import RecurrentMLP
from spark_rl.policies.mlp import TwinMLP
from spark_rl.policies.networks import Network
from spark_rl.policies.spec import PolicySpec


def build(spec: PolicySpec, *, seed: int, device: torch.device) -> Network:
    """The network of a spec with its initial weights; equal seeds give equal bits."""
    if spec.recurrent:
        return RecurrentMLP(spec, seed=seed, device=device)
    kinds: dict[str, type[TwinMLP] | type[NatureCNN]] = {"mlp": TwinMLP, "nature_cnn": NatureCNN}
    return kinds[spec.network](spec, seed=seed, device=device)
