"""SCHEDULER_* settings."""

from pydantic import PositiveFloat

from services.runtime.settings import ServiceSettings


class SchedulerSettings(ServiceSettings, env_prefix="SCHEDULER_"):
    address: str = "127.0.0.1:7413"
    lease_seconds: PositiveFloat = 3.0
    """How long a silent worker stays in the fleet."""
    gateway_lease_seconds: PositiveFloat = 10.0
    """How long those who wait at a silent gateway count."""
