"""Keep freed memory instead of handing it back and fetching it again at each step."""

from __future__ import annotations

import ctypes
import sys

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1


def keep_memory() -> bool:
    """Ask glibc not to return large blocks to the system; about 1.3 times the training speed on a CPU.

    It holds for the whole process and the process keeps its peak, so it is never done unasked. Returns whether the
    system's allocator took the wish (False on anything but glibc).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
