"""GATEWAY_* settings."""

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator

from services.policies.fairness.band import AUTO, parsed
from services.policies.fairness.policies import POLICIES
from services.policies.fairness.tiers import by_tier
from services.runtime.settings import ServiceSettings


class GatewaySettings(ServiceSettings, env_prefix="GATEWAY_"):
    address: str = "127.0.0.1:7411"
    http_address: str = "127.0.0.1:7410"
    """host:port of the OpenAI API."""
    metrics_address: str = ""
    """host:port of Prometheus metrics, which name tenants: not for everybody. Empty: nowhere."""
    database_url: str
    """SQLAlchemy URL, for instance sqlite+aiosqlite:////var/lib/lorikeet/lorikeet.db."""
    store_address: str = "127.0.0.1:7412"
    scheduler_address: str = Field("127.0.0.1:7413", pattern=r"[^,\s]")
    """host:port; of several schedulers, by commas, the one that leads is found."""
    trainer_address: str = ""
    """host:port; of several trainers, by commas. Empty: there is none."""
    operator_token: SecretStr
    """Lets its holder manage tenants, keys and workers."""
    key_pepper: SecretStr
    """Keys are stored as HMACs under this; changing it ends every key."""
    policy: str = "vtc"
    """Who is next when workers are busy: one of services/policies/fairness/policies.py."""
    requests_per_minute: PositiveInt = 60
    """Of each tenant, for the policies "rpm-reject" and "rpm-delay"."""
    band: str = AUTO
    """For the policy "vtc-adapter": within how much service requests whose adapter is on the worker
    come first, in what the counters count (a token of input 1, of output 2). "auto": as much as
    loads make worth it."""
    tiers: str = "priority=16,default=4,flex=1"
    """What each tier of service gets against the others where there is not enough for all."""
    tier_first_tokens_ms: str = ""
    """How long first tokens of a tier may take, for requests that say nothing themselves, for
    instance "priority=2000": what is predicted to take longer is refused at once."""
    most_waiting: PositiveInt = 4096
    """Requests in the queue. Beyond that the newest of those with most for their weight (tier, then
    tenant; under "vtc-hierarchy" tier, organisation, tenant, adapter) is refused."""
    settle_seconds: PositiveFloat = 1.0
    """How often counters are settled with other gateways; what tenants' service may differ by
    grows with it."""
    longest_request_seconds: PositiveFloat = 600.0
    """The deadline of a request that brings none, and the most that one may ask for."""
    most_body_bytes: PositiveInt = 8 * 1024 * 1024
    lease_seconds: PositiveFloat = 15.0
    """A gateway that is silent for so long has died: others close what it left, also of quotas."""
    most_requests: PositiveInt = 4096
    """Requests for completions that are taken on at once; others are told to come back."""

    @field_validator("band")
    @classmethod
    def _wide(cls, band: str) -> str:
        parsed(band)
        return band

    @field_validator("tiers", "tier_first_tokens_ms")
    @classmethod
    def _by_tier(cls, text: str) -> str:
        by_tier(text)
        return text

    @field_validator("policy")
    @classmethod
    def _known(cls, policy: str) -> str:
        if policy not in POLICIES:
            raise ValueError(f"must be one of {', '.join(POLICIES)}")
        return policy
