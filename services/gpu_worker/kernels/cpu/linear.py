"""Products on the CPU: in C where a compiler is at hand, else their references."""

import copy
import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from services.gpu_worker.kernels import device, reference
from services.gpu_worker.kernels.cpu.native import huge, library
from services.gpu_worker.kernels.cpu.weights import FLOAT32, PANEL, Weights, room
from services.gpu_worker.kernels.device import Segment
from services.gpu_worker.kernels.reference import Piece, Slice

MOST_SLICES = 3

_int = ctypes.c_int32
_long = ctypes.c_int64
_pointer = ctypes.c_void_p


class _Slice(ctypes.Structure):
    _fields_ = (
        ("up", _pointer),
        ("rank_start", _int),
        ("rank_end", _int),
        ("column_start", _int),
        ("column_end", _int),
    )


class _Piece(ctypes.Structure):
    _fields_ = (
        ("down", _pointer),
        ("inputs", _int),
        ("rank", _int),
        ("slices", _int),
        ("unused", _int),
        ("slice", _Slice * MOST_SLICES),
    )


class _Site(ctypes.Structure):
    _fields_ = (("pieces", _pointer), ("count", _long))


class _Chunk(ctypes.Structure):
    _fields_ = (("first", _int), ("count", _int), ("sites", _pointer))


class _Deltas(ctypes.Structure):
    _fields_ = (
        ("chunks", _pointer),
        ("h", _pointer),
        ("count", _int),
        ("most_rows", _int),
        ("most_rank", _int),
        ("most_pieces", _int),
    )


class Bank:
    """One resident adapter, ready to multiply: its pieces by site number, for torch and for C."""

    def __init__(self, sites: Sequence[Sequence[Piece]]) -> None:
        pieces = [piece for site in sites for piece in site]
        self.sites = sites
        self.most_rank = max((piece.down.shape[0] for piece in pieces), default=0)
        self.most_pieces = max((len(site) for site in sites), default=0)
        self._pieces = (_Piece * len(pieces))(*(_in_c(piece) for piece in pieces))
        self._sites = (_Site * len(sites))()
        at = 0
        for index, site in enumerate(sites):
            address = ctypes.addressof(self._pieces) + at * ctypes.sizeof(_Piece)
            self._sites[index] = _Site(address, len(site))
            at += len(site)

    @property
    def address(self) -> int:
        return ctypes.addressof(self._sites)


class Deltas:
    """What all adapters of a step add, made once a step and used by every linear."""

    def __init__(self, segments: Sequence[Segment], rows: int) -> None:
        self.segments = [(segment, _ours(segment.bank)) for segment in segments]
        chunks = (_Chunk * len(segments))(
            *(_Chunk(s.first, s.last - s.first, bank.address) for s, bank in self.segments)
        )
        most_rank = max((bank.most_rank for _, bank in self.segments), default=0)
        hidden = torch.empty(rows, most_rank)
        self._kept = (chunks, hidden)  # C has their addresses
        self._in_c = _Deltas(
            ctypes.addressof(chunks),
            hidden.data_ptr(),
            len(segments),
            max((s.last - s.first for s in segments), default=0),
            most_rank,
            max((bank.most_pieces for _, bank in self.segments), default=0),
        )

    @property
    def address(self) -> int | None:
        return ctypes.addressof(self._in_c) if self.segments else None


class Linear:
    """y = x W^T + b, with W laid out for the processor once; `site` is its number to adapters."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, site: int = 0) -> None:
        """weight: [out, in]"""
        self._library = library()
        self.outputs, self.inputs = weight.shape
        self.bias = bias
        self.weight = weight  # for C in panels, see team.h
        self.site = site
        if self._library is not None:
            panels = -(-self.outputs // PANEL)
            self.weight = huge(torch.empty(panels, self.inputs, PANEL))
            self._library.lorikeet_pack(
                _pointer(weight.contiguous().data_ptr()), _pointer(self.weight.data_ptr()),
                _int(self.outputs), _int(self.inputs),
            )  # fmt: skip

    def __call__(self, x: Tensor, deltas: device.Deltas | None = None) -> Tensor:
        """See device.Linear."""
        assert deltas is None or isinstance(deltas, Deltas)
        if self._library is None:
            y = linear(x, self.weight, self.bias)
            for segment, bank in deltas.segments if deltas is not None else ():
                rows = slice(segment.first, segment.last)
                reference.add_delta(y[rows], x[rows], bank.sites[self.site])
            return y
        y = torch.empty(x.shape[0], self.outputs)
        weights = self.in_c
        rounded = room(weights, x.shape[0])
        self._library.lorikeet_linear(
            _pointer(x.data_ptr()), _long(x.stride(0)),
            ctypes.byref(weights), ctypes.byref(rounded.in_c),
            _pointer(y.data_ptr()), _long(y.stride(0)), _int(x.shape[0]),
            _pointer(None if deltas is None else deltas.address),
        )  # fmt: skip
        return y

    @property
    def in_c(self) -> Weights:
        """With addresses of what it holds."""
        bias = None if self.bias is None else self.bias.data_ptr()
        return Weights(
            self.weight.data_ptr(), bias, None, None, self.outputs, self.inputs, FLOAT32, self.site
        )

    def twin(self) -> "Linear":
        """See device.Device."""
        other = copy.copy(self)
        other.weight = huge(torch.empty_like(self.weight))
        other.weight.copy_(self.weight)  # so that it is there when it is wanted
        return other

    def become(self, linear: "Linear", pieces: Sequence[Piece]) -> None:
        """See device.Device.fold."""
        self.weight.copy_(linear.weight)
        for piece in pieces:
            for part in piece.slices:
                self._add(piece.down[part.rank_start : part.rank_end], part)

    def _add(self, down: Tensor, part: Slice) -> None:
        if self._library is None:
            self.weight[part.column_start : part.column_end].addmm_(part.up.T, down)
            return
        first, end = part.column_start // PANEL, -(-part.column_end // PANEL)
        up = part.up
        if part.column_start % PANEL or part.column_end % PANEL:  # a panel is not all its own
            before, behind = part.column_start - first * PANEL, end * PANEL - part.column_end
            up = torch.nn.functional.pad(up, (before, behind))
        by_panel = up.unflatten(1, (-1, PANEL)).transpose(0, 1)
        self.weight[first:end].baddbmm_(down.T.expand(end - first, -1, -1), by_panel)


def _ours(bank: device.Bank) -> Bank:
    assert isinstance(bank, Bank)
    return bank


def _in_c(piece: Piece) -> Any:
    slices = (
        _Slice(
            part.up.data_ptr(), part.rank_start, part.rank_end, part.column_start, part.column_end
        )
        for part in piece.slices
    )
    rank, inputs = piece.down.shape
    return _Piece(
        piece.down.data_ptr(), inputs, rank, len(piece.slices), 0, (_Slice * MOST_SLICES)(*slices)
    )
