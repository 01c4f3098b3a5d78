"""Configuration: read once from the environment, typed, and refused at start if it is wrong."""

import os
import sys
from typing import Any, TypeVar

from pydantic import NonNegativeFloat, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.telemetry import LogFormat


class ServiceSettings(BaseSettings):
    """What every process needs. Subclasses set `env_prefix`."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", frozen=True, extra="forbid")

    address: str
    """host:port to serve gRPC on."""
    service_token: SecretStr
    """Shared by the suite's processes; whoever holds it is trusted as an operator."""
    drain_seconds: NonNegativeFloat = 30.0
    """After SIGTERM, how long running calls may go on."""
    log_format: LogFormat = LogFormat.JSON
    log_level: str = "info"


S = TypeVar("S", bound=ServiceSettings)


def load(kind: type[S]) -> S:
    """Read settings from the environment, or end the process with a list of what is wrong."""
    try:
        _refuse_unknown(kind)
        return kind()  # type: ignore[call-arg]  # the fields come from the environment
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        for problem in error.errors():
            name = prefix + "__".join(str(part) for part in problem["loc"]).upper()
            sys.stderr.write(f"{name}: {problem['msg']}\n")
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
    raise SystemExit(2)


def _refuse_unknown(kind: type[ServiceSettings]) -> None:
    """pydantic-settings ignores a misspelt variable; a service must not."""
    prefix: Any = kind.model_config.get("env_prefix", "")
    known = {(prefix + name).upper() for name in kind.model_fields}
    unknown = [
        name
        for name in os.environ
        if name.upper().startswith(prefix) and name.upper().split("__")[0] not in known
    ]
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
