"""Which machine a figure is from."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from spark_rl.version import __version__

_PACKAGES = ("numpy", "pyarrow", "gymnasium", "torch", "pyspark", "stable-baselines3")


def describe() -> dict[str, Any]:
    """Cores, processor, load, versions and date, as JSON values.

    `load_1min` tells a reader whether the machine was quiet: more than a few tenths before a benchmark begins is not.
    """
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu_model(),
        "load_1min": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version(), "spark_rl": __version__} | _installed(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu_model() -> str:
    """Linux has it in /proc/cpuinfo; elsewhere whatever Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _installed() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
