"""Models as OpenAI's clients list them: base models, and what a tenant may name beside them."""

from typing import Any

from services.core.base_model import BaseModel
from services.core.types import RequestId, TenantId
from services.gateway.course import Adapter
from services.gateway.gateway import Gateway


async def cards(gateway: Gateway, tenant: TenantId) -> list[dict[str, Any]]:
    bases, adapters = await gateway.models(tenant)
    contexts = {base.name: base.context_tokens for base in bases}
    return [_base_card(base) for base in bases] + [
        _adapter_card(adapter.name, adapter, contexts) for adapter in adapters
    ]


async def card(
    gateway: Gateway, tenant: TenantId, reference: str, request_id: RequestId
) -> dict[str, Any]:
    """Under the name that was asked for, a version ("pirate@2") too. Raises ModelNotFound."""
    found = await gateway.model(tenant, reference, request_id)
    if isinstance(found, BaseModel):
        return _base_card(found)
    bases, _ = await gateway.models(tenant)
    return _adapter_card(reference, found, {base.name: base.context_tokens for base in bases})


def _base_card(base: BaseModel) -> dict[str, Any]:
    return {
        "id": base.name,
        "object": "model",
        "created": base.created_seconds,
        "owned_by": "lorikeet",
        "root": base.name,
        "parent": None,
        "max_model_len": base.context_tokens,
    }


def _adapter_card(name: str, adapter: Adapter, contexts: dict[str, int]) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": adapter.created_seconds,
        "owned_by": adapter.owner,
        "root": f"{name.partition('@')[0]}@{adapter.number}",
        "parent": adapter.base_model,
        "max_model_len": contexts.get(adapter.base_model),
    }
