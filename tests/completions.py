"""Requests that a gateway found good."""

from dataclasses import replace
from uuid import uuid4

from tokenizers import Tokenizer, models

from services.core.types import (
    EQUAL,
    Digest,
    Fingerprint,
    KeyId,
    RequestId,
    SamplingParams,
    Share,
    TenantId,
    Tier,
)
from services.gateway.base_models import ServedModel
from services.gateway.course import Completion, Course, Job
from tests.tiny_models import tiny_card

SERVED = ServedModel(tiny_card(), Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")))


def completion(
    tenant: str,
    *,
    request: str = "",
    prompt: int = 3,
    most: int = 8,
    key: str | None = None,
    model: str = SERVED.card.name,
    base: Fingerprint = SERVED.card.fingerprint,
    adapter: str | None = None,
    adapter_bytes: int = 0,
    within_ms: int | None = None,
    share: Share = EQUAL,
    tier: Tier = Tier.DEFAULT,
) -> Completion:
    """`prompt` and `most`: tokens of the prompt, and of the completion."""
    job = Job(
        request_id=RequestId(request or uuid4().hex),
        base_model=SERVED.card.name,
        base_fingerprint=base,
        adapter=Digest(adapter) if adapter else None,
        adapter_bytes=adapter_bytes,
        prompt=(1,) * prompt,
        sampling=SamplingParams(max_tokens=most),
        cache_salt=tenant,
        first_token_within_ms=within_ms,
    )
    speaker = KeyId(key) if key else None
    return Completion(TenantId(tenant), speaker, model, SERVED, job, share=share, tier=tier)


def choices(one: Completion, count: int) -> list[Completion]:
    """So many of a request."""
    whole = one.job.request_id
    jobs = [replace(one.job, request_id=RequestId(f"{whole}-{i}")) for i in range(count)]
    return [replace(one, job=job, choices=count, party=whole) for job in jobs]


def course(tenant: str, *, prompt: int, most: int, key: str | None = None) -> Course:
    return Course(completion(tenant, prompt=prompt, most=most, key=key))
