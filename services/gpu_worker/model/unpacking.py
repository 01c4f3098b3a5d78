"""Canonical adapters, from the store's bytes to pages. Without torch: fetching needs none."""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.core.errors import CorruptData, FailedPrecondition
from services.core.types import Digest, Fingerprint
from services.gpu_worker.model.layout import Factors, Image, Layout, Numbers, lay_out

_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_held = threading.local()  # what a thread gathers into: memory that is used again costs no faults
_MOST_HELD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Unpacker:
    """Lays one base model's adapters out in pages of so many elements. Processes can pass it on.

    `widths`: output features by site name ("0.q").
    """

    fingerprint: Fingerprint
    widths: Mapping[str, int]
    elements: int

    def unpack(self, pieces: Iterable[bytes], digest: Digest, image: Image) -> Layout:
        """Writes the adapter, a canonical file (adapter_store/canonical.py) in pieces, to `image`.

        Raises CorruptData if the bytes are not the digest's, FailedPrecondition if they are for
        another base model, ResourceExhausted if a page cannot hold even one rank of it.
        """
        data = _gathered(pieces, digest)
        try:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(bytes(data[8 : 8 + length]))
            facts = json.loads(header["__metadata__"]["lorikeet"])
            body = data[8 + length :]
            sites = {
                site: _factors(header, body, site, scaling, facts["format"])
                for site, scaling in facts["scaling"].items()
            }
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptData(f"adapter {digest[:12]} is not a canonical adapter") from error
        if facts["base_fingerprint"] != self.fingerprint:
            raise FailedPrecondition(f"adapter {digest[:12]} is for another base model")
        layers = 1 + max(int(site.split(".")[0]) for site in self.widths)
        return self.lay_out(sites, image, layers)

    def lay_out(self, sites: Mapping[str, Factors], image: Image, layers: int) -> Layout:
        """See layout.lay_out."""
        return lay_out(sites, self.widths, image, layers=layers, elements=self.elements)


def _gathered(pieces: Iterable[bytes], digest: Digest) -> memoryview:
    """All of them, verified; until this thread gathers the next."""
    held: bytearray = getattr(_held, "bytes", bytearray())
    found, size = hashlib.sha256(), 0
    for piece in pieces:
        found.update(piece)
        if len(held) < size + len(piece):
            held = held[:size] + bytes(max(size, len(piece)))
        held[size : size + len(piece)] = piece
        size += len(piece)
    _held.bytes = held if len(held) <= _MOST_HELD_BYTES else bytearray()
    if found.hexdigest() != digest:
        raise CorruptData(f"the bytes of adapter {digest[:12]} are not what its digest says")
    return memoryview(held)[:size]


def _factors(
    header: Mapping[str, Any], body: memoryview, site: str, scaling: float, form: int
) -> Factors:
    b = _matrix(header[f"{site}.B"], body)
    return Factors(_matrix(header[f"{site}.A"], body), b.T if form == 1 else b, scaling)


def _matrix(entry: Mapping[str, Any], body: memoryview) -> Numbers:
    start, end = entry["data_offsets"]
    values = np.frombuffer(body[start:end], _TYPES[entry["dtype"]])
    if entry["dtype"] == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(entry["shape"])
