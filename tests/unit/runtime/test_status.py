import pickle

import grpc
import pytest
from google.rpc import error_details_pb2

from services.core import errors
from services.core.errors import FieldViolation, ServingError
from services.gateway.http_errors import HTTP
from services.runtime.status import STATUS, from_status, to_status


def every_error() -> set[type[ServingError]]:
    found, open_ = set(), [ServingError]
    while open_:
        children = open_.pop().__subclasses__()
        found.update(children)
        open_ += children
    return found


def test_every_domain_error_has_a_grpc_status_and_an_http_status() -> None:
    assert every_error() == set(STATUS)
    assert every_error() == set(HTTP)


def test_every_status_carries_an_error_info() -> None:
    status = to_status(errors.ModelNotFound("no"))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("MODEL_NOT_FOUND", "lorikeet")


def test_a_bad_request_names_every_field() -> None:
    error = errors.InvalidRequest([FieldViolation("a", "is odd"), FieldViolation("b", "is long")])
    detail = error_details_pb2.BadRequest()
    assert to_status(error).details[1].Unpack(detail)
    assert [violation.field for violation in detail.field_violations] == ["a", "b"]


def test_unavailable_says_when_to_come_back() -> None:
    detail = error_details_pb2.RetryInfo()
    assert to_status(errors.Unavailable("busy", 2.5)).details[1].Unpack(detail)
    assert detail.retry_delay.ToMilliseconds() == 2500


@pytest.mark.parametrize("kind", [errors.RateLimited, errors.QuotaExceeded])
@pytest.mark.parametrize("seconds", [None, 0.001, 61.0])
def test_a_limit_arrives_as_it_was_sent(
    kind: type[errors.RateLimited], seconds: float | None
) -> None:
    sent = to_status(kind("no room", "tokens_per_minute", "key:k2345678", seconds))
    assert sent.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    retries = [d for d in sent.details if d.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    assert len(retries) == (seconds is not None)
    arrived = from_status(sent)
    assert type(arrived) is kind
    assert vars(arrived) == vars(kind("no room", "tokens_per_minute", "key:k2345678", seconds))
    assert vars(pickle.loads(pickle.dumps(arrived))) == vars(arrived)


def test_a_system_without_room_is_no_limit_of_the_callers() -> None:
    assert type(from_status(to_status(errors.ResourceExhausted("full")))) is (
        errors.ResourceExhausted
    )
