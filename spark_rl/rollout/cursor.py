"""Where a group of environments stands between two iterations: a file of plain arrays, committed with the iteration.

The next task may run in any Python process, so the cursor is enough to go on to the bit: the environments' state where
it can be captured, else what identifies the unfinished episodes whose stored actions are to be replayed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load, save

from spark_rl.envs.group import Carried

_OBSERVATION = "observation/"
_STATE = "env/"


@dataclass(slots=True)
class Cursor:
    """N environments of one group."""

    carried: Carried
    t: np.ndarray  # int32 [N]: env steps so far in the current episode
    episode_return: np.ndarray  # float64 [N]: reward so far in it
    first_iteration: np.ndarray  # int32 [N]: iteration in which it began
    policy_version_min: np.ndarray  # int64 [N]: oldest version that acted in it
    state: np.ndarray | None = None  # float32 [N, S]: recurrent policy state

    def encode(self) -> bytes:
        """Equal cursors give equal bytes, so the hash identifies the position."""
        arrays = {"t": self.t, "episode_return": self.episode_return, "first_iteration": self.first_iteration,
                  "policy_version_min": self.policy_version_min, "pending": self.carried.pending,
                  "episode": self.carried.episode}  # fmt: skip
        if self.state is not None:
            arrays["state"] = self.state
        arrays |= {_OBSERVATION + name: values for name, values in self.carried.observation.items()}
        arrays |= {_STATE + name: values for name, values in self.carried.arrays.items()}
        # The tree travels as one byte array: safetensors' own metadata is a hash map without a stable order.
        tree = json.dumps(self.carried.tree, separators=(",", ":")).encode()
        arrays["tree"] = np.frombuffer(tree, np.uint8)
        # Not ascontiguousarray, which would give a single number the shape [1].
        return bytes(save({name: np.asarray(values, order="C") for name, values in arrays.items()}))

    @classmethod
    def decode(cls, content: bytes) -> Cursor:
        """Inverse of `encode`."""
        arrays = load(content)
        carried = Carried(
            observation=_under(arrays, _OBSERVATION),
            pending=arrays["pending"],
            episode=arrays["episode"],
            tree=json.loads(arrays["tree"].tobytes()),
            arrays=_under(arrays, _STATE),
        )
        return cls(carried=carried, t=arrays["t"], episode_return=arrays["episode_return"],
                   first_iteration=arrays["first_iteration"], policy_version_min=arrays["policy_version_min"],
                   state=arrays.get("state"))  # fmt: skip


def _under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
