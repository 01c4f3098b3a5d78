"""URLs that a store gives: for one upload, some bytes of it, and a time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.adapter_store.signing import Grant, Signer
from services.core.errors import PermissionDenied

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GRANT = Grant("ab" * 16, 100, 900, int((NOW + timedelta(hours=1)).timestamp()))


def signer(secret: str = "secret", *, later: timedelta = timedelta(0)) -> Signer:
    return Signer(secret, now=lambda: NOW + later)


def test_a_path_allows_what_it_was_made_for() -> None:
    path = signer().path(GRANT)
    assert signer().grant(path) == GRANT
    assert signer(later=timedelta(seconds=3599)).grant(path) == GRANT


@pytest.mark.parametrize(
    "changed",
    [
        {"upload_id": "cd" * 16},
        {"offset": 0},
        {"length": 901},
        {"expires": GRANT.expires + 1},
    ],
)
def test_a_signature_holds_for_nothing_else(changed: dict[str, int]) -> None:
    path, other = signer().path(GRANT), signer().path(replace(GRANT, **changed))  # type: ignore[arg-type]
    forged = other.rpartition("=")[0] + "=" + path.rpartition("=")[2]
    with pytest.raises(PermissionDenied, match="no URL that a store gave"):
        signer().grant(forged)


@pytest.mark.parametrize("path", ["/", "/uploads/1", signer().path(GRANT) + "&offset=0"])
def test_what_is_no_path_of_ours_is_refused(path: str) -> None:
    with pytest.raises(PermissionDenied):
        signer().grant(path)


def test_another_secret_and_a_later_time_refuse_it() -> None:
    path = signer().path(GRANT)
    with pytest.raises(PermissionDenied, match="no URL"):
        signer("another").grant(path)
    with pytest.raises(PermissionDenied, match="expired"):
        signer(later=timedelta(hours=1)).grant(path)
