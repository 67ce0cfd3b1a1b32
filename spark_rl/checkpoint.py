"""The learner's state on disk, atomically: everything that the next iteration depends on and that is not yet stored.

A checkpoint after iteration k is a directory of three files. The small JSON is written last and holds the hashes of the
others, so a directory without it, or with another hash, is no checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from spark_rl.files import Root
from spark_rl.schema import layout

_WEIGHTS = "weights.safetensors"
_STATE = "learner.safetensors"
_RECORD = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State after learning from `iteration`."""

    iteration: int
    env_steps: int  # committed so far
    weights: bytes  # of policy_version = iteration + 1
    state_tensors: bytes  # the algorithm's arrays, safetensors
    state_scalars: str  # its JSON
    finished: str = ""  # why the run is over after this iteration; "" = it is not

    def save(self, root: Root) -> None:
        """Write it; on return it is complete."""
        place = layout.checkpoint(self.iteration)
        root.write(f"{place}/{_WEIGHTS}", self.weights)
        root.write(f"{place}/{_STATE}", self.state_tensors)
        record = _Record(self.iteration, self.env_steps, _hash(self.weights), _hash(self.state_tensors),
                         self.state_scalars, self.finished)  # fmt: skip
        root.write(f"{place}/{_RECORD}", json.dumps(asdict(record)).encode())


@dataclass(frozen=True, slots=True)
class _Record:
    iteration: int
    env_steps: int
    weights_sha256: str
    state_sha256: str
    state_scalars: str
    finished: str


def newest(root: Root, committed: list[int]) -> Checkpoint | None:
    """The newest complete checkpoint of a committed iteration; None where there is none."""
    known = set(committed)
    places = (name for name in root.names(layout.CHECKPOINTS) if name.isdigit() and int(name) in known)
    for name in sorted(places, key=int, reverse=True):
        found = load(root, int(name))
        if found is not None:
            return found
    return None


def load(root: Root, iteration: int) -> Checkpoint | None:
    """The checkpoint after an iteration; None where it is missing, cut short or damaged."""
    place = layout.checkpoint(iteration)
    try:
        record = _Record(**json.loads(root.read(f"{place}/{_RECORD}")))
        weights, tensors = root.read(f"{place}/{_WEIGHTS}"), root.read(f"{place}/{_STATE}")
    except (FileNotFoundError, ValueError, TypeError):  # the latter two: a record cut short, or of another shape
        return None
    if (_hash(weights), _hash(tensors)) != (record.weights_sha256, record.state_sha256):
        return None
    return Checkpoint(record.iteration, record.env_steps, weights, tensors, record.state_scalars, record.finished)


def prune(root: Root, keep: int) -> None:
    """Remove all but the `keep` newest; so the directory does not grow with the run."""
    names = sorted((name for name in root.names(layout.CHECKPOINTS) if name.isdigit()), key=int)
    for name in names[:-keep]:
        root.delete(f"{layout.CHECKPOINTS}/{name}")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
