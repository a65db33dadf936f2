"""Where a cache keeps the keys and values of one layer: in the network's numbers or in int8, all of them or a ring.

A ring keeps the last tokens only: a token at place p lies in slot p modulo the ring's size, over the one that lay there
before. A layer that reaches `local` tokens back needs no more than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from bothways.model.attention import Kept

Where = slice | tuple[Tensor, Tensor]
"""Slots that all documents share, or the document and the slot of each row."""
Numbers = Literal["exact", "int8"]


@dataclass(frozen=True)
class Step:
    """What one call brings, the same for all layers of a kind.

    first: nothing was kept before, so new tokens need only look at themselves.
    batch, count: documents, and slots of new tokens for each.
    used: slots that hold something after this call.
    where: the slots that new rows go to.
    rows: which row goes there, where not all are kept; none for all.
    laid_out: (B, n) the row in each slot of new tokens, where a ring is looked at beside them; none where it is not.
    """

    first: bool
    batch: int
    count: int
    used: int
    where: Where
    rows: Tensor | None = None
    laid_out: Tensor | None = None


class Buffer(Protocol):
    """Vectors (B, K, capacity, D) in some number format."""

    def write(self, rows: Tensor, where: Where, batch: int) -> None: ...

    def read(self, batch: int, used: int) -> Tensor: ...

    def resize(self, documents: int, capacity: int) -> None: ...

    def move(self, source: Buffer, chosen: Tensor, to: Tensor, used: int) -> None: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def tensors(self) -> tuple[Tensor, ...]: ...


class Exact:
    """Vectors as they are, in one buffer that is written in place."""

    def __init__(self, documents: int, heads: int, capacity: int, width: int, dtype: torch.dtype,
                 device: torch.device) -> None:
        self.data = torch.zeros(documents, heads, capacity, width, dtype=dtype, device=device)

    def write(self, rows: Tensor, where: Where, batch: int) -> None:
        """Keep rows (N, K, D)."""
        _put(self.data, rows, where, batch)

    def read(self, batch: int, used: int) -> Tensor:
        """(batch, K, capacity, D) without a copy; the first `used` slots hold something."""
        return self.data[:batch]

    def resize(self, documents: int, capacity: int) -> None:
        """Room for more documents or more slots."""
        self.data = _grown(self.data, documents, capacity)

    def move(self, source: Buffer, chosen: Tensor, to: Tensor, used: int) -> None:
        """Documents `to` of ours become copies of documents `chosen` of the source, which may be this one."""
        for own, other in zip(self.tensors, source.tensors, strict=True):
            own[:, :, :used].index_copy_(0, to, other[:, :, :used].index_select(0, chosen))

    @property
    def size(self) -> tuple[int, int]:
        """Documents and slots there is room for."""
        return self.tensors[0].shape[0], self.tensors[0].shape[2]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that takes memory."""
        return (self.data,)


class Int8(Exact):
    """Vectors as 8-bit numbers, each vector with its own scale: largest entry / 127.

    An approximation: an entry is off by at most half a scale. A quarter of float32's memory, and one scale a vector.
    """

    def __init__(self, documents: int, heads: int, capacity: int, width: int, dtype: torch.dtype,
                 device: torch.device) -> None:
        super().__init__(documents, heads, capacity, width, torch.int8, device)
        self.scale = torch.zeros(documents, heads, capacity, 1, dtype=torch.float32, device=device)
        self.dtype = dtype

    def write(self, rows: Tensor, where: Where, batch: int) -> None:
        """Keep rows (N, K, D), rounded."""
        scale = rows.abs().amax(-1, keepdim=True).float().clamp_(min=1e-12) / 127
        _put(self.data, (rows / scale).round_().to(torch.int8), where, batch)
        _put(self.scale, scale, where, batch)

    def read(self, batch: int, used: int) -> Tensor:
        """(batch, K, used, D) in the network's numbers, which live for one layer's look only."""
        return (self.data[:batch, :, :used] * self.scale[:batch, :, :used]).to(self.dtype)

    def resize(self, documents: int, capacity: int) -> None:
        super().resize(documents, capacity)
        self.scale = _grown(self.scale, documents, capacity)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.data, self.scale


class Store:
    """Keys and values of one layer; `step` is set for each call.

    Args:
        ring: slots of a ring; none keeps every token.
        shared: one vector is key and value (a latent); values given are not kept.
    """

    takes_back = True
    """Whether tokens can be taken back."""

    def __init__(self, documents: int, heads: int, capacity: int, width: int, dtype: torch.dtype,
                 device: torch.device, ring: int | None = None, numbers: Numbers = "exact", shared: bool = False
                 ) -> None:
        self.ring = ring
        made = Int8 if numbers == "int8" else Exact
        slots = capacity if ring is None else min(ring, capacity)
        self.kept = tuple(made(documents, heads, slots, width, dtype, device)
                          for _ in range(1 if shared else 2))
        self.step = Step(True, documents, 0, 0, slice(0, 0))

    @property
    def keys(self) -> Tensor:
        """(B, K, capacity, D) as they lie in memory."""
        return self.kept[0].tensors[0]

    @property
    def values(self) -> Tensor:
        """(B, K, capacity, D) as they lie in memory."""
        return self.kept[-1].tensors[0]

    @property
    def first(self) -> bool:
        """Whether the new tokens need only look at themselves."""
        return self.step.first

    def extend(self, keys: Tensor, values: Tensor) -> Kept:
        """Keep the rows (N, K, D) of new tokens; returns what all may be looked at by the plan of this call."""
        step = self.step
        told = (keys.detach(), values.detach())[:len(self.kept)]
        beside: list[Tensor] = []
        if step.laid_out is not None:
            # several new tokens may lie over those that the first of them still sees: look before writing
            inside = step.laid_out.flatten()
            for buffer, rows in zip(self.kept, told, strict=True):
                new = rows.index_select(0, inside).unflatten(0, step.laid_out.shape).transpose(1, 2)
                beside.append(torch.cat((buffer.read(step.batch, step.used)[:, :, :step.used], new), dim=2))
        for buffer, rows in zip(self.kept, told, strict=True):
            buffer.write(rows if step.rows is None else rows.index_select(0, step.rows), step.where, step.batch)
        if beside:
            return Kept(beside[0], beside[-1])
        if step.first:
            return Kept(self.keys, self.values)
        read = [buffer.read(step.batch, step.used) for buffer in self.kept]
        return Kept(read[0], read[-1])

    def resize(self, documents: int, capacity: int) -> None:
        """Room for so many documents of so many tokens."""
        for buffer in self.kept:
            buffer.resize(documents, capacity if self.ring is None else min(self.ring, capacity))

    def move(self, source: Store, chosen: Tensor, to: Tensor, used: int) -> None:
        """Documents `to` become copies of documents `chosen` of the source."""
        used = used if self.ring is None else min(used, self.ring)
        for own, other in zip(self.kept, source.kept, strict=True):
            own.move(other, chosen, to, used)


def _put(data: Tensor, rows: Tensor, where: Where, batch: int) -> None:
    if isinstance(where, slice):
        data[:batch, :, where] = rows.unflatten(0, (batch, -1)).transpose(1, 2)
    else:
        data[where[0], :, where[1]] = rows.to(data.dtype)


def _grown(data: Tensor, documents: int, capacity: int) -> Tensor:
    """The same numbers in a larger buffer, or the same buffer if it is large enough."""
    old = data.shape[0], data.shape[2]
    if documents <= old[0] and capacity <= old[1]:
        return data
    size = max(documents, old[0]), data.shape[1], max(capacity, old[1]), data.shape[3]
    larger = torch.zeros(size, dtype=data.dtype, device=data.device)
    larger[:old[0], :, :old[1]] = data
    return larger
