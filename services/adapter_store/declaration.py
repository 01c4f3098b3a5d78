"""What a caller says of an adapter before its bytes come."""

import math
import re
from collections.abc import Sequence

from services.adapter_store.records import Provenance
from services.core.base_model import BaseModel
from services.core.errors import (
    FailedPrecondition,
    FieldViolation,
    InvalidAdapter,
    InvalidRequest,
)

HEX64 = re.compile(r"[0-9a-f]{64}")
LONGEST_TEXT = 255
MOST_FACTS = 64

_FACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
TENANT = re.compile(r"[a-z][a-z0-9-]{0,62}")
_ADAPTER = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_declaration(
    *, tenant: str, adapter: str, size_bytes: int, sha256: str, content_tag: str, most_bytes: int
) -> None:
    """Raises InvalidRequest with everything that is wrong."""
    wrong = []
    if not TENANT.fullmatch(tenant):
        wrong.append(FieldViolation("tenant", "is not the name of a tenant"))
    if not _ADAPTER.fullmatch(adapter):
        wrong.append(
            FieldViolation(
                "adapter", "1 to 63 of a-z, 0-9, -, _ and ., starting with a letter or digit"
            )
        )
    if not 1 <= size_bytes <= most_bytes:
        wrong.append(FieldViolation("size_bytes", f"must be 1 to {most_bytes}"))
    if not HEX64.fullmatch(sha256) and (sha256 or not content_tag):
        wrong.append(FieldViolation("sha256", "must be 64 hexadecimal digits"))
    if content_tag and not HEX64.fullmatch(content_tag):
        wrong.append(FieldViolation("content_tag", "must be 64 hexadecimal digits"))
    if wrong:
        raise InvalidRequest(wrong)


def check_provenance(provenance: Provenance) -> None:
    """Raises InvalidRequest with everything that is wrong."""
    wrong = [
        FieldViolation(f"provenance.{name}", f"at most {LONGEST_TEXT} characters")
        for name in ("job", "licence")
        if len(getattr(provenance, name)) > LONGEST_TEXT
    ]
    wrong += [
        FieldViolation("provenance.parents", f"{parent!r} is not a digest")
        for parent in provenance.parents
        if not HEX64.fullmatch(parent)
    ]
    for name in ("labels", "metrics", "parents"):
        if len(getattr(provenance, name)) > MOST_FACTS:
            wrong.append(FieldViolation(f"provenance.{name}", f"at most {MOST_FACTS}"))
    for key, value in provenance.labels.items():
        if not _FACT.fullmatch(key) or len(value) > LONGEST_TEXT:
            wrong.append(
                FieldViolation(
                    "provenance.labels",
                    f"{key!r}: a key like a file's name, a value "
                    f"of at most {LONGEST_TEXT} characters",
                )
            )
    for key, metric in provenance.metrics.items():
        if not _FACT.fullmatch(key) or not math.isfinite(metric):
            wrong.append(
                FieldViolation(
                    "provenance.metrics", f"{key!r}: a key like a file's name, a finite value"
                )
            )
    if wrong:
        raise InvalidRequest(wrong)


def choose_base(models: Sequence[BaseModel], *, chosen: str, stated: str) -> BaseModel:
    """The base model that an adapter is for: as the caller says, or as its config does.

    Raises FailedPrecondition if none is known, InvalidRequest or InvalidAdapter if none is meant.
    """
    if not models:
        raise FailedPrecondition("no base model is known yet; start a worker first")
    by_config = _called(models, stated)
    if not chosen:
        if by_config is None:
            known = ", ".join(model.name for model in models)
            hint = f"name one of {known} if it is another name of it"
            raise _another_base(f"{stated!r} is not served here; {hint}")
        return by_config
    by_choice = _called(models, chosen)
    if by_choice is None:
        raise InvalidRequest.of("base_model", f"{chosen!r} is not served here")
    if by_config is not None and by_config.name != by_choice.name:
        raise _another_base(f"says {stated!r}, not {chosen!r}")
    return by_choice


def _called(models: Sequence[BaseModel], name: str) -> BaseModel | None:
    return next((model for model in models if model.is_called(name)), None)


def _another_base(description: str) -> InvalidAdapter:
    return InvalidAdapter([FieldViolation("base_model_name_or_path", description)])
