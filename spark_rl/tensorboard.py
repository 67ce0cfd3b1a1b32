"""Curves for TensorBoard, from the same rows as metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pyarrow import fs

from spark_rl.files import Root
from spark_rl.schema import layout


class Curves:
    """Writes scalars over env_steps into a local run directory; a run elsewhere has metrics.jsonl.

    TensorBoard's writer takes 0.3 s to import. That happens in the background, while the first rollout is awaited.
    """

    def __init__(self, root: Root, *, resumed_at: int) -> None:
        """`resumed_at`: env_steps after which older points are to be hidden; 0 for a new run."""
        self._writer: Future[Any] | None = None
        if isinstance(root.filesystem, fs.LocalFileSystem):
            background = ThreadPoolExecutor(1, "tensorboard")
            self._writer = background.submit(_open, root.locate(layout.TENSORBOARD), resumed_at)
            background.shutdown(wait=False)

    def write(self, row: Mapping[str, float]) -> None:
        """One iteration's metrics."""
        if self._writer is not None:
            for name, value in row.items():
                if "/" in name:
                    self._writer.result().add_scalar(name, value, int(row["env_steps"]))

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.result().close()


def _open(directory: str, resumed_at: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(directory, purge_step=resumed_at + 1 if resumed_at else None)
