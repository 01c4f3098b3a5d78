"""SCHEDULER_* settings."""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from services.policies.autoscaling import Rules
from services.runtime.settings import ServiceSettings


class SchedulerSettings(ServiceSettings, env_prefix="SCHEDULER_"):
    address: str = "127.0.0.1:7413"
    metrics_address: str = ""
    """host:port of Prometheus metrics, for autoscalers too. Empty: nowhere."""
    database_url: str
    """SQLAlchemy URL, for instance sqlite+aiosqlite:////var/lib/lorikeet/lorikeet.db. On PostgreSQL
    several schedulers may run, of which one leads; it must not be behind a pooler that shares
    sessions."""
    lease_seconds: PositiveFloat = 3.0
    """How long a silent worker stays in the fleet."""
    gateway_lease_seconds: PositiveFloat = 10.0
    """How long those who wait at a silent gateway count."""
    leader_seconds: float = Field(5.0, ge=0.5)
    """After which a leader that the database hears nothing of is followed by another."""
    stuck_seconds: PositiveFloat = 30.0
    """A worker whose steps stand still for so long while something runs takes no requests."""
    migration_seconds: NonNegativeFloat = 10.0
    """From one look for moves that even out the fleet to the next. 0: never."""
    most_moves: PositiveInt = 8
    """In which a worker takes part at once."""
    migrations_kept_days: PositiveFloat = 7.0
    """How long the log of moves goes back."""
    scaling: Rules = Rules()
    """By which lorikeet_scheduler_workers_wanted is reckoned."""
