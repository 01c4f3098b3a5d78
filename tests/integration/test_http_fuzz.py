"""The HTTP API against its own document, by schemathesis: no 500, and nothing undocumented.

LORIKEET_FUZZ_EXAMPLES=1000 for more requests of each kind than here.
"""

import os
import random
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from services.gateway.http import HttpLimits, build_app
from tests.fuzz.http_requests import sensible
from tests.integration.conftest import BASE, Running

EXAMPLES = int(os.environ.get("LORIKEET_FUZZ_EXAMPLES", "2"))
MODELS = (BASE, "pirate", "json@1")
NOT_PROMISED = [
    not_a_server_error,  # 503 is an answer; see below
    positive_data_acceptance,  # a schema cannot say what goes together, or which tokens there are
    ignored_auth,  # it sends the key of this test, too
]

_nothing: Any = None  # the document does not depend on what is served
schema = schemathesis.openapi.from_dict(
    build_app(_nothing, _nothing, HttpLimits(60, 10_000), _nothing).openapi()
)


@schema.hook
def map_case(context: Any, case: Any) -> Any:
    """Of those that shall be good most are; the others stay as they are."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    draw = random.Random(repr(case.body) + repr(case.path_parameters))
    model = draw.choice(MODELS)
    case.body = sensible(case.body, draw, model=model)
    if case.path_parameters:
        versions = {"version": "1", "model": "json"} if "version" in case.path_parameters else {}
        case.path_parameters |= {"model": model} | versions
    return case


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_api_is_as_documented(case: Any, running: Running) -> None:
    url = running.http.removesuffix("/v1")
    headers = {"authorization": f"Bearer {running.keys['acme']}"}
    answer = case.call_and_validate(
        base_url=url, headers=headers, timeout=60, excluded_checks=NOT_PROMISED
    )
    assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text
    assert answer.headers["x-request-id"]
