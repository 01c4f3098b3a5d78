"""What a client is told of its limits."""

import json

import pytest

from services.core.errors import QuotaExceeded, RateLimited, Unavailable
from services.gateway.http_errors import error_response
from services.gateway.quotas import rate_headers
from services.policies.quotas import Rate, Standing


def test_a_limit_that_is_reached_says_when_to_come_back() -> None:
    response = error_response(RateLimited("no room", "tokens_per_minute", "tenant:acme", 12.2))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "13"
    assert "x-should-retry" not in response.headers
    error = json.loads(bytes(response.body))["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert error["message"] == "no room"


def test_what_never_fits_is_not_to_be_tried_again() -> None:
    response = error_response(QuotaExceeded("never", "tokens_in_total", "tenant:acme"))
    assert response.status_code == 429
    assert "retry-after" not in response.headers
    assert response.headers["x-should-retry"] == "false"
    assert json.loads(bytes(response.body))["error"]["code"] == "insufficient_quota"


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "1"), (0.4, "1"), (2.5, "3"), (3.0, "3")])
def test_waiting_as_long_as_was_said_is_enough(seconds: float, told: str) -> None:
    assert error_response(Unavailable("busy", seconds)).headers["retry-after"] == told


def test_rates_have_openais_names() -> None:
    assert rate_headers(Standing()) == {}
    shown = rate_headers(Standing(Rate(60, 59, 61), Rate(1000, 0, 3)))
    assert shown == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "61s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "3s",
    }
