"""A recurrent network: layers, one memory (LSTM or GRU) and two heads, all shared by actor and critic.

N rows, B sequences of at most T steps, H units of the memory, S numbers of its state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spark_rl.policies.features import width
from spark_rl.policies.flat import Parameter
from spark_rl.policies.networks import HIDDEN_GAIN, AutogradNetwork, Memory, Output, head_parameters
from spark_rl.policies.spec import PolicySpec

GATES = {"lstm": 4, "gru": 3}


class RecurrentMLP(AutogradNetwork):
    """`trunk.{i}.weight`, `trunk.{i}.bias`, then `core.weight_ih`, `core.weight_hh`, `core.bias_ih`, `core.bias_hh`
    as torch.nn.LSTMCell and GRUCell have them, `actor.head.*`, `critic.head.*`.

    Source: Hochreiter & Schmidhuber 1997 (LSTM); Cho et al. 2014, arXiv:1406.1078 (GRU). Orthogonal weights and zero
    biases after Huang et al. 2022, "The 37 implementation details of PPO", on recurrent networks.
    """

    def __init__(self, spec: PolicySpec, *, seed: int, device: torch.device) -> None:
        self._kind, self._units = spec.recurrent, spec.recurrent_size
        self._num_layers, self._tanh = len(spec.hidden), spec.activation == "tanh"
        parameters: list[Parameter] = []
        size = sum(width(leaf) for leaf in spec.visible.leaves)
        for i, units in enumerate(spec.hidden):
            parameters.append(Parameter(f"trunk.{i}.weight", (units, size), HIDDEN_GAIN))
            parameters.append(Parameter(f"trunk.{i}.bias", (units,)))
            size = units
        rows = GATES[spec.recurrent] * self._units
        parameters += [
            Parameter("core.weight_ih", (rows, size), 1.0),
            Parameter("core.weight_hh", (rows, self._units), 1.0),
            Parameter("core.bias_ih", (rows,)),
            Parameter("core.bias_hh", (rows,)),
        ]
        super().__init__(spec, [*parameters, *head_parameters(spec, self._units)], seed=seed, device=device)
        self._core = tuple(self._named[f"core.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))

    def __call__(
        self, features: Tensor, images: list[Tensor], *, memory: Memory | None = None, learn: bool = False
    ) -> Output:
        """See Network; there are no images. Time runs within `memory`'s grid, and so does the gradient."""
        assert memory is not None, "a recurrent network has to know where its rows lie in time"
        with torch.set_grad_enabled(learn):
            x = features
            for i in range(self._num_layers):
                x = self.linear(f"trunk.{i}", x)
                x = x.tanh() if self._tanh else x.relu()
            units, state = self._through_time(x, memory)
            output = self.heads(units)
        output.state = state
        return output

    def _through_time(self, x: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The memory's output at every row, [N, H], and its state after the grid's last step, [B, S]."""
        length, num_sequences = memory.fresh.shape
        grid = x.new_zeros(length * num_sequences, x.shape[1]).index_copy(0, memory.place, x)
        kept = (~memory.fresh).to(x).unsqueeze(2).unbind(0)
        state, outputs = memory.state, []
        for x_t, kept_t in zip(grid.view(length, num_sequences, -1).unbind(0), kept, strict=True):
            state = self._cell(x_t, state * kept_t)
            outputs.append(state[:, : self._units])
        return torch.cat(outputs).index_select(0, memory.place), state.detach()

    def _cell(self, x: Tensor, state: Tensor) -> Tensor:
        """One step: [B, X], [B, S] -> [B, S]."""
        if self._kind == "gru":
            return torch.gru_cell(x, state, *self._core)
        h, c = state.split(self._units, dim=1)
        return torch.cat(torch.lstm_cell(x, (h, c), *self._core), dim=1)
