"""Everything that can go wrong for a caller, in words that a caller may read.

ServingError
├── InvalidRequest            a field is wrong (names the fields)
│   └── InvalidAdapter        an adapter cannot be honoured exactly
├── Unauthenticated           no key, or a key that does not work
├── PermissionDenied          a key that works, for something else
├── NotFound                  it does not exist, or it is somebody else's
│   └── ModelNotFound
├── AlreadyExists
├── FailedPrecondition        the system is not in the state that this needs
├── Aborted                   somebody else changed it first
├── OutOfRange                what would come next is no longer kept
├── OffsetMismatch            a chunk that does not follow the committed bytes
├── CorruptData               bytes that are not what their checksum says
├── ResourceExhausted         it cannot fit, now or ever
│   └── RateLimited           a limit of the caller's own stands in the way
│       └── QuotaExceeded     a budget, not a rate
├── Unavailable               try again later
│   └── TooLate               its first token would come later than the caller can wait
└── DeadlineExceeded
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing that is wrong: the field's path, and a sentence."""

    field: str
    description: str


class ServingError(Exception):
    """An error that a caller may see: `reason` is stable, the text is for people."""

    reason = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(ServingError):
    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.violations,)

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidRequest":
        return cls([FieldViolation(field, description)])


class InvalidAdapter(InvalidRequest):
    reason = "INVALID_ADAPTER"


class Unauthenticated(ServingError):
    reason = "INVALID_API_KEY"


class PermissionDenied(ServingError):
    reason = "PERMISSION_DENIED"


class NotFound(ServingError):
    reason = "NOT_FOUND"


class ModelNotFound(NotFound):
    reason = "MODEL_NOT_FOUND"

    @classmethod
    def named(cls, model: str) -> "ModelNotFound":
        return cls(f"the model {model!r} does not exist or you do not have access to it")


class AlreadyExists(ServingError):
    reason = "ALREADY_EXISTS"


class FailedPrecondition(ServingError):
    reason = "FAILED_PRECONDITION"


class Aborted(ServingError):
    reason = "ABORTED"


class OutOfRange(ServingError):
    reason = "OUT_OF_RANGE"


class OffsetMismatch(ServingError):
    reason = "OFFSET_MISMATCH"

    def __init__(self, committed_bytes: int, offset: int) -> None:
        super().__init__(f"the next chunk starts at {committed_bytes}, not at {offset}")
        self.committed_bytes = committed_bytes
        self.offset = offset

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.committed_bytes, self.offset)


class CorruptData(ServingError):
    reason = "CORRUPT_DATA"


class ResourceExhausted(ServingError):
    reason = "RESOURCE_EXHAUSTED"


class RateLimited(ResourceExhausted):
    reason = "RATE_LIMITED"

    def __init__(
        self, message: str, limit: str = "", subject: str = "", retry_seconds: float | None = None
    ) -> None:
        """`limit` of `subject` ("tenant:acme", "key:k3f9a1c2"). `retry_seconds`: None if no wait
        makes room."""
        super().__init__(message)
        self.limit = limit
        self.subject = subject
        self.retry_seconds = retry_seconds


class QuotaExceeded(RateLimited):
    reason = "QUOTA_EXCEEDED"


class Unavailable(ServingError):
    reason = "UNAVAILABLE"

    def __init__(self, message: str, retry_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class TooLate(Unavailable):
    reason = "TOO_LATE"


class DeadlineExceeded(ServingError):
    reason = "DEADLINE_EXCEEDED"
