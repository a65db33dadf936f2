"""An optional kernel of our own for products of a few rows with many weights, as a text being written needs them.

    python -m bothways.model.native        builds it now, and says where it lies

Such a product reads every weight once, so it should take as long as reading memory does; the framework's own take
longer. `products.cpp` is built by the machine's C++ compiler, in a second, for exactly this processor, and is kept in
`$XDG_CACHE_HOME/bothways` (or `~/.cache/bothways`). BOTHWAYS_NATIVE says when:

* not set: it is used where it has been built before, and never built;
* 1: it is built when it is first needed, and used;
* 0: it is neither built nor used.

Nothing depends on it: without a compiler, or with a broken one, the framework's products go on as they did.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from bothways.errors import BothwaysError

SOURCE = Path(__file__).with_name("products.cpp")
FLAGS = ("-O3", "-march=native", "-std=gnu++17", "-fPIC", "-shared", "-w")
MOST = 16
"""Rows up to which it is the faster one; with more the framework's products have enough to compute."""
SMALL = 1 << 16
"""Weights below which a second thread costs more than it saves."""
KINDS = {torch.float32: ord("f"), torch.bfloat16: ord("b"), torch.int8: ord("8")}
PLAIN = (Tensor, nn.Parameter)


class Kernel:
    """A built kernel, loaded."""

    def __init__(self, file: Path) -> None:
        """Raises: OSError where it cannot be loaded."""
        self.file = file
        self._call = ctypes.CDLL(str(file)).bothways_product
        self._call.argtypes = [ctypes.c_int] * 2 + [ctypes.c_void_p] * 5 + [ctypes.c_long] * 3 + [ctypes.c_int]

    def product(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None, scale: Tensor | None = None
                ) -> Tensor:
        """inputs (weight * scale)' + bias: (N, I) with (O, I) to (N, O).

        Args:
            inputs: float32 or bfloat16; nothing of it is recorded for gradients.
            weight: of the same type, or int8, contiguous.
            bias: (O,) of the inputs' type. scale: (O,) float32.
        """
        inputs = inputs if inputs.is_contiguous() else inputs.contiguous()
        (rows, width), outputs = inputs.shape, len(weight)
        made = inputs.new_empty(rows, outputs)
        threads = 1 if outputs * width < SMALL else torch.get_num_threads()
        failed = self._call(KINDS[inputs.dtype], KINDS[weight.dtype], inputs.data_ptr(), weight.data_ptr(),
                            0 if scale is None else scale.data_ptr(), 0 if bias is None else bias.data_ptr(),
                            made.data_ptr(), rows, outputs, width, threads)
        assert not failed, f"no kernel for {inputs.dtype} with {weight.dtype}"
        return made


def kernel() -> Kernel | None:
    """The kernel, where it may be used (see above); looked for once."""
    wanted = os.environ.get("BOTHWAYS_NATIVE", "")
    return None if wanted == "0" else _found(wanted == "1")


def suits(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether `Kernel.product` can do this, and is quick at it: few rows on the CPU, nothing traced or recorded."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(inputs) not in PLAIN:
        return False
    if inputs.dim() != 2 or len(inputs) > MOST or inputs.device.type != "cpu" or inputs.dtype not in KINDS:
        return False
    if weight.dtype not in (inputs.dtype, torch.int8) or not weight.is_contiguous() or not inputs.numel():
        return False
    if (bias is not None and (bias.dtype != inputs.dtype or not bias.is_contiguous())) or type(weight) not in PLAIN:
        return False
    learns = torch.is_grad_enabled() and (inputs.requires_grad or weight.requires_grad)
    return not learns and not torch.is_autocast_enabled("cpu")


@functools.cache
def _found(build_it: bool) -> Kernel | None:
    try:
        return build() if build_it else Kernel(place()) if place().is_file() else None
    except (BothwaysError, OSError) as error:
        warnings.warn(f"the native kernel is not used: {error}", stacklevel=2)
        return None


@functools.cache
def place() -> Path:
    """Where the kernel lies, or will lie, for this source, processor and PyTorch."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    known = (SOURCE.read_bytes(), repr(FLAGS).encode(), torch.__version__.encode(), _processor().encode())
    return home / "bothways" / f"products-{hashlib.sha256(b'|'.join(known)).hexdigest()[:16]}.so"


def build() -> Kernel:
    """Build the kernel where it is not there yet, try it, and load it.

    Raises:
        BothwaysError: no compiler, one that fails, or a kernel that computes something else than the framework.
    """
    if place().is_file():
        return Kernel(place())
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "g++", "c++", "clang++"))), None)
    if compiler is None:
        raise BothwaysError("there is no C++ compiler here (g++, c++, clang++, or the one that CXX names)")
    place().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place().parent) as folder:
        aside, said = Path(folder) / place().name, ""
        for threads in _threads():
            command = [compiler, *FLAGS, *threads[:1], str(SOURCE), "-o", str(aside), *threads[1:]]
            try:
                run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                said = str(error)
                continue
            if run.returncode == 0 and aside.is_file():
                _try(Kernel(aside))
                aside.replace(place())
                return Kernel(place())
            said = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[0]
    raise BothwaysError(f"{compiler} does not build it ({said})")


def _threads() -> Iterator[tuple[str, ...]]:
    """What the compiler is told of threads: those of the framework's own pool, its own OpenMP, none."""
    for library in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        yield "-fopenmp", str(library), f"-Wl,-rpath,{library.parent}"
    yield ("-fopenmp",)
    yield ()


def _try(made: Kernel) -> None:
    """A few small products beside the framework's."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        inputs, bias = (torch.randn(size, generator=generator).to(dtype) for size in ((7, 50), (9,)))
        numbers, scale = torch.randint(-127, 128, (9, 50), generator=generator), torch.rand(9, generator=generator)
        for weight, factor in ((numbers.to(dtype), None), (numbers.to(torch.int8), scale)):
            right = inputs.float() @ (numbers * (1 if factor is None else factor[:, None])).T.float() + bias.float()
            got = made.product(inputs, weight, bias, factor).float()
            if not bool((got - right).norm() <= 0.01 * right.norm()):
                raise BothwaysError("what the compiler made of it computes something else")


def _processor() -> str:
    """What is built for one processor may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return platform.machine() + platform.processor() + next((line for line in lines if line.startswith("flags")), "")
