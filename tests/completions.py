"""Requests that a gateway found good."""

from dataclasses import replace
from uuid import uuid4

from tokenizers import Tokenizer, models

from services.core.types import KeyId, RequestId, SamplingParams, TenantId
from services.gateway.base_models import ServedModel
from services.gateway.course import Completion, Course, Job
from tests.tiny_models import tiny_card

SERVED = ServedModel(tiny_card(), Tokenizer(models.WordLevel({})))


def completion(
    tenant: TenantId, *, prompt: int, most: int, key: KeyId | None = None, choices: int = 1
) -> list[Completion]:
    """Its choices; tokens of the prompt, and `most` of the completion."""
    job = Job(
        request_id=RequestId(uuid4().hex),
        base_model=SERVED.card.name,
        base_fingerprint=SERVED.card.fingerprint,
        adapter=None,
        prompt=(1,) * prompt,
        sampling=SamplingParams(max_tokens=most),
        cache_salt=tenant,
    )
    one = Completion(tenant, key, SERVED.card.name, SERVED, job)
    if choices == 1:
        return [one]
    named = [replace(job, request_id=RequestId(f"{job.request_id}-{i}")) for i in range(choices)]
    return [replace(one, job=each, choices=choices, party=job.request_id) for each in named]


def course(tenant: TenantId, *, prompt: int, most: int, key: KeyId | None = None) -> Course:
    return Course(completion(tenant, prompt=prompt, most=most, key=key)[0])
