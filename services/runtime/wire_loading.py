"""How long adapters take to come to a worker, on the wire."""

from lorikeet.types.v1 import loading_pb2 as pb
from services.core.reports import LoadTimes, TransferTimes

MEBIBYTE = 1 << 20


def load_times_to_wire(times: LoadTimes) -> pb.LoadTimes:
    message = pb.LoadTimes()
    for field, found in ((message.fetch, times.fetch), (message.copy, times.copy)):
        if found is not None:
            field.base_ms = found.base
            field.mebibyte_ms = found.byte * MEBIBYTE
            field.typical_bytes = found.typical_bytes
            field.SetInParent()
    return message


def load_times_from_wire(message: pb.LoadTimes) -> LoadTimes:
    """What is unset is not known."""
    return LoadTimes(
        fetch=_times(message.fetch) if message.HasField("fetch") else None,
        copy=_times(message.copy) if message.HasField("copy") else None,
    )


def _times(message: pb.TransferTimes) -> TransferTimes:
    return TransferTimes(message.base_ms, message.mebibyte_ms / MEBIBYTE, message.typical_bytes)
