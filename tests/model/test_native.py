"""The native kernel computes what the framework computes; without it, or with a broken compiler, nothing is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bothways.errors import BothwaysError
from bothways.model import native
from bothways.model.compact import Int8
from bothways.model.product import product


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's kernel is built."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The native kernel wanted, and kept where nobody else looks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("BOTHWAYS_NATIVE", "1")
    native._found.cache_clear()
    native.place.cache_clear()
    yield folder  # type: ignore[misc]
    native._found.cache_clear()
    native.place.cache_clear()


@pytest.fixture
def kernel(cache: Path) -> native.Kernel:
    """The kernel itself."""
    if not any(map(shutil.which, (os.environ.get("CXX") or "g++", "c++", "clang++"))):
        pytest.skip("there is no C++ compiler here")
    return native.build()


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("rows", [1, 2, 5, 7, 16])
@pytest.mark.parametrize("outputs,width", [(1, 1), (6, 15), (7, 33), (40, 64), (512, 160)])
def test_it_agrees_with_the_framework(kernel: native.Kernel, rows: int, outputs: int, width: int) -> None:
    inputs, weight, bias = numbers(rows, width), numbers(outputs, width), numbers(outputs)
    torch.testing.assert_close(kernel.product(inputs, weight, bias), F.linear(inputs, weight, bias), atol=1e-4,
                               rtol=1e-4)
    # int8: exact weights, states rounded to bfloat16 at most
    whole = torch.randint(-127, 128, weight.shape, generator=torch.Generator().manual_seed(1))
    scale = numbers(outputs).abs() + 0.1
    right = inputs.bfloat16().float() @ (whole * scale[:, None]).T + bias
    slack = 0.01 * (inputs.abs() @ (whole.abs() * scale[:, None]).T)
    assert bool(((kernel.product(inputs, whole.to(torch.int8), bias, scale) - right).abs() <= slack + 1e-4).all())
    # bfloat16: sums in float32, rounded once
    small = [one.bfloat16() for one in (inputs, weight, bias)]
    right = small[0].float() @ small[1].float().T + small[2].float()
    got = kernel.product(*small)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), right, atol=1e-3 * width ** 0.5, rtol=1 / 127)


def test_what_is_no_number_stays_none(kernel: native.Kernel) -> None:
    inputs = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]])
    for dtype in (torch.float32, torch.bfloat16):
        made = kernel.product(inputs.to(dtype), torch.ones(3, 2, dtype=dtype))
        assert bool(made[0].isnan().all()) and bool(made[1].isinf().all())


def test_the_network_goes_through_it(kernel: native.Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    once = native.Kernel.product
    monkeypatch.setattr(native.Kernel, "product", lambda *given: called.append(1) or once(*given))
    inputs, weight = numbers(3, 64), numbers(48, 64)
    with torch.no_grad():
        torch.testing.assert_close(product(inputs, weight), F.linear(inputs, weight))
        Int8(weight, None)(inputs)
    assert len(called) == 2
    # not where something is learnt, compiled, or of many rows
    weight.requires_grad_()
    product(inputs, weight).sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        product(numbers(native.MOST + 1, 64), weight)
    monkeypatch.setenv("BOTHWAYS_NATIVE", "0")
    with torch.no_grad():
        product(inputs, weight)
    assert len(called) == 2


def test_it_is_never_built_unasked(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BOTHWAYS_NATIVE")
    assert native.kernel() is None
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("does", ["exit 1", "exit 0", "touch_output", "missing"])
def test_a_broken_compiler_breaks_nothing(does: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
                                          ) -> None:
    compiler = tmp_path / "cc"
    said = 'while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"' if does == "touch_output" else does
    if does != "missing":
        compiler.write_text(f"#!/bin/sh\n{said}\n")
        compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if does == "missing":
        monkeypatch.setattr(native.shutil, "which", lambda name: None)
    with pytest.raises((BothwaysError, OSError)):
        native.build()
    with pytest.warns(UserWarning, match="the native kernel is not used"):
        assert native.kernel() is None
    inputs, weight = numbers(2, 8), numbers(4, 8)
    with torch.no_grad():
        assert torch.equal(product(inputs, weight), F.linear(inputs, weight))
    left = list((tmp_path / "cache").rglob("*.so"))
    assert left == []
