"""Several gateways, one account: what each charged goes to the scheduler and comes back summed."""

import asyncio
import secrets
from typing import TypeVar

import grpc
import structlog

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.core.types import Fingerprint
from services.policies.fairness.admission import AdmissionPolicy
from services.policies.fairness.clearing import Answer, Branch
from services.policies.fairness.tiers import Tiers
from services.policies.fairness.vtc import VirtualTokenCounters
from services.runtime.client import AWAY, Channels, bearer

log = structlog.get_logger()

P = TypeVar("P", bound=AdmissionPolicy)


class Settling:
    """Of the policies that have counters; the others have nothing to settle."""

    def __init__(self, channels: Channels, token: str, *, seconds: float) -> None:
        """`seconds`: from one statement to the next; the longer, the wider the bound."""
        self._channels = channels
        self._token = token
        self._seconds = seconds
        self._gateway = secrets.token_hex(8)
        self._branches: dict[tuple[Fingerprint, str], Branch] = {}  # and the account
        self._is_lost = False

    def shared(self, base: Fingerprint, account: str, policy: P) -> P:
        """The policy, whose counters are from now on one account with those of other gateways."""
        if isinstance(policy, VirtualTokenCounters | Tiers):
            self._branches[base, account] = policy.branch(self._gateway)
        return policy

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            for (base, account), branch in list(self._branches.items()):
                await self._settle(base, account, branch)

    async def _settle(self, base: Fingerprint, account: str, branch: Branch) -> None:
        statement = branch.statement()
        request = pb.SettleRequest(
            base_fingerprint=base,
            account=account,
            gateway=statement.gateway,
            number=statement.number,
            bases=statement.bases,
            charged=statement.charged,
            active=statement.active,
            floor=statement.floor,
        )
        channel = self._channels.current
        try:
            response = await rpc.SchedulerServiceStub(channel).Settle(
                request, metadata=bearer(self._token), timeout=2 * self._seconds
            )
        except grpc.aio.AioRpcError as error:
            if not self._is_lost:
                log.warning("accounts_not_settled", why=error.details())
            self._is_lost = True
            branch.lost()
            if error.code() in AWAY:
                self._channels.leave(channel)
            return
        self._is_lost = False
        branch.accept(
            Answer(
                house=response.house,
                number=response.number,
                counters=dict(response.counters),
                floor=response.floor if response.HasField("floor") else None,
            )
        )
