"""What a policy is, as data that crosses the wire."""

from __future__ import annotations

from dataclasses import dataclass

from spark_rl.errors import UserError
from spark_rl.schema.spaces import SpaceSpec

KINDS = ("actor_critic", "tabular", "q", "squashed", "deterministic", "uniform", "scripted")
NETWORKS = ("mlp", "nature_cnn")
ACTIVATIONS = ("tanh", "relu")
RECURRENT = ("", "lstm", "gru")
ACTION_KINDS = ("discrete", "multi_discrete", "box")


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySpec:
    """A policy over fixed spaces; together with the weights it is all that acting needs.

    kind: actor_critic is a network; tabular a table of action values over finite spaces; q a network of action
    values; squashed (a Gaussian, by tanh) and deterministic are actors in finite boxes; uniform and scripted have no
    weights (`entry_point` is the script's "module:function") and serve to collect datasets.

    mlp: two towers of equal shape, one for the action and one for the value, `hidden` units a layer.
    nature_cnn: three shared convolutions for every uint8 image leaf; what they give is joined with the other leaves
    and goes through shared layers of `hidden` units (512 in the source: Mnih et al. 2015).
    With `recurrent`, actor and critic share the layers and one memory; the state is float32, h and c of an LSTM one
    after the other.
    Raises UserError for a name, a size or an action space that no network here supports.
    """

    observation: SpaceSpec
    action: SpaceSpec
    kind: str = "actor_critic"
    entry_point: str = ""
    network: str = "mlp"
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"  # of the `hidden` layers; convolutions always use relu
    normalize_observation: bool = False  # subtract the running mean, divide by the running standard deviation
    log_std_init: float = 0.0  # natural log of the initial standard deviation, in action units; box actions only
    recurrent: str = ""  # "lstm" or "gru" between the layers and the heads; "" is a policy without memory
    recurrent_size: int = 64  # units of that memory
    action_mask: str = ""  # the observation's leaf that says which choices are allowed; no feature then

    def __post_init__(self) -> None:
        for key, value, known in (
            ("kind", self.kind, KINDS),
            ("network", self.network, NETWORKS),
            ("activation", self.activation, ACTIVATIONS),
            ("recurrent", self.recurrent, RECURRENT),
        ):
            if value not in known:
                wanted = "one of " + ", ".join(repr(name) for name in known)
                raise UserError(f"policy.{key}", repr(value), wanted, "choose one of these")
        if self.recurrent and self.network != "mlp":
            raise UserError("policy.recurrent", f"{self.recurrent!r} with network = {self.network!r}",
                            "network = 'mlp'", "flatten the picture, or stack frames instead")  # fmt: skip
        if any(size < 1 for size in (*self.hidden, self.recurrent_size)):
            sizes = [*self.hidden, self.recurrent_size]
            where = "policy.hidden, policy.recurrent_size" if self.recurrent else "policy.hidden"
            raise UserError(where, str(sizes if self.recurrent else list(self.hidden)), "sizes of at least 1",
                            "give units per layer")  # fmt: skip
        if len(self.action.leaves) != 1 or self.action.leaves[0].kind not in ACTION_KINDS:
            kinds = [leaf.kind for leaf in self.action.leaves]
            raise UserError("action space", str(kinds), "one of Discrete, MultiDiscrete, Box", "wrap the environment")
        if self.action_mask:
            self._check_mask()
        images = [leaf for leaf in self.observation.leaves if leaf.is_image]
        if self.kind == "actor_critic" and self.network == "nature_cnn" and not images:
            leaves = [(leaf.name, leaf.dtype, leaf.shape) for leaf in self.observation.leaves]
            raise UserError("policy.network 'nature_cnn'", str(leaves), "a uint8 image leaf", "use network = 'mlp'")

    def _check_mask(self) -> None:
        found = {leaf.name: leaf for leaf in self.observation.leaves}.get(self.action_mask)
        choices = sum(self.action.only.n)
        if self.kind != "actor_critic" or found is None or found.size != choices or not choices:
            got = f"{self.action_mask!r} for a policy of kind {self.kind!r}; "
            got += "no such leaf" if found is None else f"{found.size} numbers for {choices} discrete choices"
            raise UserError("policy.action_mask", got, "a leaf of an actor-critic's observation, a number for each "
                            "choice of a (multi-)discrete action", "use action_mask = 'off'")  # fmt: skip

    @property
    def visible(self) -> SpaceSpec:
        """The observation as the network sees it: without the action mask."""
        if not self.action_mask:
            return self.observation
        leaves = tuple(leaf for leaf in self.observation.leaves if leaf.name != self.action_mask)
        return SpaceSpec(leaves, self.observation.structure)

    @property
    def state_size(self) -> int:
        """Numbers of a recurrent state (S); 0 without memory."""
        return {"": 0, "lstm": 2, "gru": 1}[self.recurrent] * self.recurrent_size
