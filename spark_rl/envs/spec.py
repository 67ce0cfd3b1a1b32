"""Which environment a run uses, as data that crosses the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class WrapperSpec:
    """A gymnasium wrapper: `entry_point` is "module:Class", called with the environment and `kwargs` (JSON text)."""

    entry_point: str
    kwargs: str = "{}"


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvSpec:
    """Everything needed to build the same environment anywhere.

    `id` is a registered id ("CartPole-v1"), "module:EnvId" (the module is imported first) or "module:Class" (called
    with `kwargs`, JSON text). `vectorization` is "native" (the environment's own vector implementation) or "sync"
    (single environments stepped in turn); "auto" prefers native where there is one and no wrapper is asked for.
    `max_episode_steps` is 0 where the environment's own limit holds.
    """

    id: str
    kwargs: str = "{}"
    wrappers: tuple[WrapperSpec, ...] = ()
    vectorization: str = "auto"
    max_episode_steps: int = 0

    def arguments(self) -> dict[str, Any]:
        """The constructor's keyword arguments."""
        return dict(json.loads(self.kwargs))
