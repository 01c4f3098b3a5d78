"""Runs the scheduler."""

from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.runtime import telemetry
from services.runtime.access import SCHEDULER, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.clock import SystemClock
from services.runtime.server import Server, run, run_until_stopped
from services.runtime.settings import load
from services.scheduler.accounts import Accounts
from services.scheduler.fleet import Fleet
from services.scheduler.servicer import SchedulerServicer
from services.scheduler.settings import SchedulerSettings


async def main() -> None:
    settings = load(SchedulerSettings)
    telemetry.setup("scheduler", log_format=settings.log_format, level=settings.log_level)
    clock = SystemClock()
    fleet = Fleet(clock, lease_seconds=settings.lease_seconds)
    accounts = Accounts(clock, lease_seconds=settings.gateway_lease_seconds)
    gate = Gate(ServiceToken(settings.service_token.get_secret_value()), scopes_of(SCHEDULER))
    server = Server(address=settings.address, gate=gate, services=[SCHEDULER])
    rpc.add_SchedulerServiceServicer_to_server(SchedulerServicer(fleet, accounts), server.grpc)
    await run_until_stopped(server, drain_seconds=min(settings.drain_seconds, 2.0))


if __name__ == "__main__":
    run(main)
