"""Domain errors as google.rpc.Status, and back (AIP-193)."""

import math
from typing import cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.core import errors
from services.core.errors import FieldViolation, ServingError

DOMAIN = "lorikeet"

STATUS: dict[type[ServingError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidAdapter: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.OffsetMismatch: grpc.StatusCode.OUT_OF_RANGE,
    errors.CorruptData: grpc.StatusCode.DATA_LOSS,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.TooLate: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_BY_CODE: dict[grpc.StatusCode, type[ServingError]] = {
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.ABORTED: errors.Aborted,
    grpc.StatusCode.OUT_OF_RANGE: errors.OutOfRange,
    grpc.StatusCode.DATA_LOSS: errors.CorruptData,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}

_LIMITS = {kind.reason: kind for kind in (errors.RateLimited, errors.QuotaExceeded)}


def to_status(error: ServingError) -> status_pb2.Status:
    """The whole error as one Status: an ErrorInfo always, and what else applies."""
    code = STATUS.get(type(error), grpc.StatusCode.INTERNAL)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    details: list[Message] = [info]
    match error:
        case errors.InvalidRequest():
            details.append(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(
                            field=violation.field, description=violation.description
                        )
                        for violation in error.violations
                    ]
                )
            )
        case errors.OffsetMismatch():
            info.metadata["committed_bytes"] = str(error.committed_bytes)
        case errors.RateLimited():
            info.metadata["limit"] = error.limit
            violation = error_details_pb2.QuotaFailure.Violation(
                subject=error.subject, description=error.message
            )
            details.append(error_details_pb2.QuotaFailure(violations=[violation]))
            if error.retry_seconds is not None:
                details.append(_retry(error.retry_seconds))
        case errors.ResourceExhausted():
            violation = error_details_pb2.QuotaFailure.Violation(description=error.message)
            details.append(error_details_pb2.QuotaFailure(violations=[violation]))
        case errors.Unavailable():
            details.append(_retry(error.retry_seconds))
    return status_pb2.Status(
        code=code.value[0], message=error.message, details=[_pack(detail) for detail in details]
    )


def from_rpc_error(failure: grpc.RpcError) -> ServingError:
    """What a peer of the suite said, as the domain error that it raised there."""
    status = rpc_status.from_call(cast(grpc.Call, failure))
    text = failure.details() or failure.code().name
    return from_status(status or status_pb2.Status(code=failure.code().value[0], message=text))


def from_status(status: status_pb2.Status) -> ServingError:
    """The inverse of to_status."""
    bad_request = error_details_pb2.BadRequest()
    info, quota = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    retry: error_details_pb2.RetryInfo | None = None
    for detail in status.details:
        detail.Unpack(bad_request) or detail.Unpack(info) or detail.Unpack(quota)
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            detail.Unpack(retry := error_details_pb2.RetryInfo())
    text = status.message
    seconds = None if retry is None else retry.retry_delay.ToMilliseconds() / 1000
    match _CODES[status.code]:
        case grpc.StatusCode.INVALID_ARGUMENT:
            violations = [
                FieldViolation(violation.field, violation.description)
                for violation in bad_request.field_violations
            ] or [FieldViolation("request", text)]
            kind = errors.InvalidAdapter if info.reason == "INVALID_ADAPTER" else None
            return (kind or errors.InvalidRequest)(violations)
        case grpc.StatusCode.OUT_OF_RANGE if "committed_bytes" in info.metadata:
            return errors.OffsetMismatch(int(info.metadata["committed_bytes"]), -1)
        case grpc.StatusCode.NOT_FOUND if info.reason == errors.ModelNotFound.reason:
            return errors.ModelNotFound(text)
        case grpc.StatusCode.UNAVAILABLE:
            late = info.reason == errors.TooLate.reason
            return (errors.TooLate if late else errors.Unavailable)(text, seconds or 1.0)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if info.reason in _LIMITS:
            subject = quota.violations[0].subject if quota.violations else ""
            return _LIMITS[info.reason](text, info.metadata["limit"], subject, seconds)
        case code:
            return _BY_CODE.get(code, ServingError)(text)


def _retry(seconds: float) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(math.ceil(seconds * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
