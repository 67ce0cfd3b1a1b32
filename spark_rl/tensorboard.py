"""Curves for TensorBoard, from the same rows as metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyarrow import fs

from spark_rl.files import Root
from spark_rl.schema import layout


class Curves:
    """Writes scalars over env_steps into a local run directory; a run elsewhere has metrics.jsonl."""

    def __init__(self, root: Root, *, resumed_at: int) -> None:
        """`resumed_at`: env_steps after which older points are to be hidden; 0 for a new run."""
        self._writer: Any = None
        if isinstance(root.filesystem, fs.LocalFileSystem):
            from torch.utils.tensorboard import SummaryWriter  # deferred: 0.5 s that other verbs need not pay

            purge = resumed_at + 1 if resumed_at else None
            self._writer = SummaryWriter(root.locate(layout.TENSORBOARD), purge_step=purge)

    def write(self, row: Mapping[str, float]) -> None:
        """One iteration's metrics."""
        if self._writer is not None:
            for name, value in row.items():
                if "/" in name:
                    self._writer.add_scalar(name, value, int(row["env_steps"]))

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()
