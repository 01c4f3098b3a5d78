"""Who may call what is said of every method, and little is open to everybody."""

from google.protobuf import descriptor_pool

import lorikeet.gateway.v1.gateway_service_pb2
import lorikeet.gateway.v1.tenant_service_pb2
import lorikeet.kserve.v2.inference_pb2
import lorikeet.trainer.v1.trainer_service_pb2  # noqa: F401
from services.runtime.access import GATEWAY, INFERENCE, TENANTS, TRAINER, scopes_of
from services.runtime.auth import Scope


def test_every_method_of_the_gateway_has_a_scope() -> None:
    for service in (GATEWAY, TENANTS, INFERENCE, TRAINER):
        found = descriptor_pool.Default().FindServiceByName(service)
        assert set(scopes_of(service)) == {f"/{service}/{m.name}" for m in found.methods}


def test_what_needs_no_key_is_how_servers_are() -> None:
    public = {
        method
        for service in (GATEWAY, TENANTS, INFERENCE, TRAINER)
        for method, scope in scopes_of(service).items()
        if scope is Scope.PUBLIC
    }
    assert public == {f"/{INFERENCE}/ServerLive", f"/{INFERENCE}/ServerReady"}
