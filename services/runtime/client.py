"""Channels to the suite's services."""

from collections.abc import Sequence

import grpc

from services.core.types import KeyId, RequestId, TenantId
from services.runtime.auth import KEY_METADATA, TENANT_METADATA

Metadata = tuple[tuple[str, str], ...]

MOST_MESSAGE_BYTES = 64 * 1024 * 1024  # a base model's tokenizer is one message

CONNECT_MILLISECONDS = 2000  # to one of several: then the next is tried

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MOST_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # how long to try, where nobody answers
    ("grpc.use_local_subchannel_pool", 1),  # who opens a channel anew wants another connection
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class Channels:
    """To the replicas of a service of which one answers. Who finds that one does not, leaves it for
    the next, and so do all who share these."""

    def __init__(self, channels: Sequence[grpc.aio.Channel]) -> None:
        self.every = tuple(channels)
        self._index = 0

    @property
    def current(self) -> grpc.aio.Channel:
        return self.every[self._index]

    def leave(self, channel: grpc.aio.Channel) -> None:
        """Unless somebody has before."""
        if channel is self.current:
            self._index = (self._index + 1) % len(self.every)

    async def close(self) -> None:
        for channel in self.every:
            await channel.close()


def open_channels(addresses: str) -> Channels:
    """host:port, several by commas. Raises ValueError if there is none."""
    named = [address.strip() for address in addresses.split(",") if address.strip()]
    if not named:
        raise ValueError("no address is named")
    options = (*CHANNEL_OPTIONS, ("grpc.min_reconnect_backoff_ms", CONNECT_MILLISECONDS))
    return Channels([grpc.aio.insecure_channel(each, options=options) for each in named])


def bearer(
    token: str,
    *,
    tenant: TenantId | None = None,
    key: KeyId | None = None,
    request_id: RequestId | None = None,
) -> Metadata:
    """Metadata that says who calls, on whose behalf, and under which name in the logs."""
    metadata: Metadata = (("authorization", f"Bearer {token}"),)
    if tenant is not None:
        metadata += ((TENANT_METADATA, tenant),)
    if key is not None:
        metadata += ((KEY_METADATA, key),)
    if request_id is not None:
        metadata += (("x-request-id", request_id),)
    return metadata
