"""How far apart the service of two tenants came, over all gateways, and how far it may."""

import asyncio
from collections.abc import Sequence
from itertools import accumulate

import grpc

from bench.failures_checks import Row, at_most
from bench.failures_load import Stream
from lorikeet.gateway.v1 import queue_service_pb2 as pb
from lorikeet.gateway.v1 import queue_service_pb2_grpc as rpc
from services.cli.connection import Metadata

INPUT, OUTPUT = 1, 2  # of service, for a token
WARM_SECONDS = 3.0  # until all callers are there


class Promises:
    """What gateways say of the gap of their own service, and of its bound."""

    def __init__(self, addresses: Sequence[str], operator: Metadata) -> None:
        self.gap = 0.0
        self.bound = 0.0
        self._addresses = addresses
        self._operator = operator

    async def watch(self) -> None:
        """Until cancelled."""
        await asyncio.gather(*(self._watch(address) for address in self._addresses))

    async def _watch(self, address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = rpc.QueueServiceStub(channel)
            request = pb.WatchQueueRequest()
            async for answer in stub.WatchQueue(request, metadata=self._operator):
                for lane in answer.lanes:
                    self.gap = max(self.gap, lane.gap)
                    self.bound = max(self.bound, lane.bound)


def gap(
    streams: Sequence[Stream], promises: Promises, *, begun: float, until: float, cut: float
) -> list[Row]:
    """Gateways that cannot settle for `cut` seconds may be off by what is served in that time."""
    served = sorted(_served(streams, begun + WARM_SECONDS, until))
    one = min((tenant for _, tenant, _ in served), default="")
    apart = list(accumulate(amount if tenant == one else -amount for _, tenant, amount in served))
    rate = sum(amount for _, _, amount in served) / (until - begun - WARM_SECONDS)
    given = {name: sum(a for _, tenant, a in served if tenant == name) for name in (one,)}
    share = given.get(one, 0) / max(1, sum(amount for _, _, amount in served))
    return [
        Row(f"share of {one}, of two", round(share, 3)),
        Row("service a second", round(rate)),
        at_most("gap of service at one gateway, as it says", promises.gap, promises.bound),
        at_most(
            "gap of service over both gateways, as clients see it",
            max(apart, default=0) - min(apart, default=0),
            promises.bound + 2 * rate * cut,
        ),
    ]


def _served(streams: Sequence[Stream], since: float, until: float) -> list[tuple[float, str, int]]:
    found = []
    for stream in streams:
        before = 0
        for at, count in zip(stream.at, stream.counts, strict=True):
            amount = OUTPUT * (count - before)
            if before == 0:
                amount += INPUT * len(stream.wish.prompt)
            if since <= at < until:
                found.append((at, stream.wish.tenant, amount))
            before = count
    return found
