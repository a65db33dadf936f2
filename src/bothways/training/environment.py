"""What a run ran on, written beside its results."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from bothways.training.precision import Found


def describe(precision: Found) -> dict[str, Any]:
    """Versions, processor, threads and number format, as plain data."""
    return {"versions": {name: _version(name) for name in ("bothways", "torch", "numpy", "safetensors", "tokenizers")},
            "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(), "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
            else os.cpu_count(), "threads": torch.get_num_threads(), "device": str(precision.device),
            "accelerator": torch.cuda.get_device_name(precision.device) if precision.device.type == "cuda" else None,
            "dtype": str(precision.dtype).removeprefix("torch."), "reason": precision.reason}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
            return next(names, platform.processor())
    except OSError:
        return platform.processor()
