"""Weights that stay in their file: the system brings each page into memory when it is first read.

A map costs nothing until it is used, and all processes that read a file share its pages. Pieces that one tensor is
made of (queries, keys and values) are mapped one behind the other, so that they need no copy either: that works
where they lie at the same place within a page, which they do as long as all tensors between them fill whole pages.

The memory is the process's own: who writes to it (training on) gets a copy of that page, and the file stays as it
is. A file that is deleted or replaced by a rename, as `save` does, lives on as long as the tensor. A file that
somebody writes into while it is mapped changes the weights, and one that is cut off ends the process: replace files,
do not overwrite them.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bothways.families.stored import Stored

SMALLEST = 1 << 20
"""Bytes from which on a tensor is mapped; smaller ones are read sooner than mapped."""
ALIGNED = {torch.float32: 16, torch.float64: 16}
"""Bytes that a tensor's place must be a multiple of. Where it is not, a library may add up a product of one row in
another order, and the last bit of a result would hang on the length of the file's header. Halves are added up the same
way anywhere."""
_FIXED = 0x10
"""The system's flag for a map at a given address."""


def mapped(pieces: Sequence[Stored], shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """One tensor of pieces laid one under the other, in their files' pages.

    Args:
        pieces: tensors in files; none for what has to be changed on its way.
        dtype: what the tensor has to be of.
    Returns:
        a tensor of that shape, which may be written to; none where the pieces have to be read: they are small, of
        another number format, lie at places that do not fit, or the system has no such maps.
    """
    size = sum(piece.size for piece in pieces)
    if size < SMALLEST or not all(piece.plain and piece.size and piece.dtype == dtype for piece in pieces):
        return None
    # 1. where each piece comes to lie: at the place within a page that it has in its file
    page = mmap.PAGESIZE
    start = end = pieces[0].offset % page
    for piece in pieces:
        if (piece.offset - end) % page:
            return None
        end += piece.size
    if start % ALIGNED.get(dtype, dtype.itemsize):
        return None
    # 2. the pieces, in a room of addresses that is given back when the tensor goes
    place = _placing()
    if place is None:
        return None
    room, at = mmap.mmap(-1, end, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)), start
    for i, piece in enumerate(pieces):
        # a piece behind another begins in a page of that one: this much of it is read
        if not _lay(piece, room, at, -at % page if i else -start, place):
            return None
        at += piece.size
    return torch.frombuffer(room, dtype=dtype, count=size // dtype.itemsize, offset=start).view(*shape)


def _lay(piece: Stored, room: mmap.mmap, at: int, read: int, place: Callable[..., int]) -> bool:
    """Let a piece begin at `at` of the room: its first `read` bytes are read, the others mapped.

    Where `read` is negative, as many bytes before the piece are mapped along. Whether it could be done.
    """
    with piece.file.open("rb", buffering=0) as stream, memoryview(room) as memory:
        if piece.offset + piece.size > os.fstat(stream.fileno()).st_size:
            return False
        if read > 0:
            stream.seek(piece.offset)
            head = memory[at:at + min(read, piece.size)]
            if stream.readinto(head) != len(head):
                return False
        if piece.size <= read:
            return True
        begin = ctypes.addressof(ctypes.c_char.from_buffer(room)) + at + read
        return place(begin, piece.size - read, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _FIXED,
                     stream.fileno(), piece.offset + read) == begin


@functools.cache
def _placing() -> Callable[..., int] | None:
    """The system's call that maps a file at a given address; none on other systems than Linux."""
    if not sys.platform.startswith("linux"):
        return None
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    return call
