"""GATEWAY_* settings."""

from pydantic import PositiveFloat, PositiveInt, SecretStr

from services.runtime.settings import ServiceSettings


class GatewaySettings(ServiceSettings, env_prefix="GATEWAY_"):
    address: str = "127.0.0.1:7411"
    http_address: str = "127.0.0.1:7410"
    """host:port of the OpenAI API."""
    database_url: str
    """SQLAlchemy URL, for instance sqlite+aiosqlite:////var/lib/lorikeet/lorikeet.db."""
    store_address: str = "127.0.0.1:7412"
    scheduler_address: str = "127.0.0.1:7413"
    operator_token: SecretStr
    """Lets its holder manage tenants, keys and workers."""
    key_pepper: SecretStr
    """Keys are stored as HMACs under this; changing it ends every key."""
    longest_request_seconds: PositiveFloat = 600.0
    """The deadline of a request that brings none, and the most that one may ask for."""
    most_body_bytes: PositiveInt = 8 * 1024 * 1024
    lease_seconds: PositiveFloat = 15.0
    """A gateway that is silent for so long has died: the others close what it left on the books."""
