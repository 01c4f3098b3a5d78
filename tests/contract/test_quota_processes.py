"""Several gateways, each a process, on one database; one of them is killed."""

import json
import subprocess
import sys
from uuid import uuid4

from services.core.types import TenantId
from services.gateway.repositories.leases import SqlLeases
from services.gateway.repositories.quotas import SqlQuotaRepository
from services.gateway.repository import SqlTenantRepository
from services.gateway.tenants import Tenants
from services.policies.quotas import Amount
from services.runtime.db import Sessions
from tests.quota_callers import MOST_ASKED

BUDGET, SLOTS, GATEWAYS = 1500, 40, 3  # tokens, requests, processes


async def test_gateways_share_a_budget_to_the_last_token_and_outlive_each_other(
    url: str, sessions: Sessions
) -> None:
    tenants = Tenants(SqlTenantRepository(sessions), pepper="pepper", operator_token="operator")
    tenant = (await tenants.create(f"t{uuid4().hex[:8]}")).name
    quotas = SqlQuotaRepository(sessions)
    await quotas.set_limits(tenant, "", {"tokens_in_total": BUDGET, "concurrent_requests": SLOTS})
    gateways = [_start(url, tenant) for _ in range(GATEWAYS)]
    try:
        for gateway in gateways:
            _expect(gateway, "ready\n")
        for gateway in gateways:
            assert gateway.stdin is not None
            gateway.stdin.write("go\n")
            gateway.stdin.flush()
        _expect(gateways[0], "running\n")
        gateways[0].kill()
        told = [_told(gateway) for gateway in gateways[1:]]
    finally:
        for gateway in gateways:
            gateway.kill()
            gateway.wait()
            assert gateway.stdin is not None
            assert gateway.stdout is not None
            gateway.stdin.close()
            gateway.stdout.close()
    leases = SqlLeases(sessions, quotas)
    for instance, beat in (await leases.beats()).items():  # they may have ended before its lease
        await leases.close_lost(instance, beat)
    use = (await quotas.quota(tenant, "")).use
    assert use.running == Amount()
    assert BUDGET - MOST_ASKED < use.total_tokens <= BUDGET
    assert sum(each["used"] for each in told) <= use.total_tokens
    assert all(each["most_running"] <= SLOTS for each in told)


def _start(url: str, tenant: TenantId) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-m", "tests.quota_callers", url, tenant]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _expect(gateway: "subprocess.Popen[str]", line: str) -> None:
    assert gateway.stdout is not None
    assert gateway.stdout.readline() == line


def _told(gateway: "subprocess.Popen[str]") -> dict[str, int]:
    """At its end, in its last line; before that come its logs."""
    told: dict[str, int] = json.loads(gateway.communicate(timeout=120)[0].splitlines()[-1])
    return told
