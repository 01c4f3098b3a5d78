"""The call that is being served: who made it, and its name in the logs."""

from contextvars import ContextVar
from dataclasses import dataclass

from services.core.types import RequestId
from services.runtime.auth import Caller


@dataclass(frozen=True, slots=True)
class Call:
    request_id: RequestId
    caller: Caller


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """Set by the interceptor for every call that is not public."""
    return _current.get()


def enter(call: Call) -> None:
    _current.set(call)
