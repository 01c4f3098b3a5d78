"""URLs that let whoever has them send some bytes of one upload, until a moment."""

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from services.core.errors import PermissionDenied

_PATH = re.compile(
    r"/uploads/(?P<upload>[0-9a-f]{32})\?offset=(?P<offset>\d{1,15})&length=(?P<length>\d{1,15})"
    r"&expires=(?P<expires>\d{1,15})&signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Grant:
    """These very bytes of an upload may be sent."""

    upload_id: str
    offset: int
    length: int
    expires: int  # seconds since 1970


class Signer:
    """All stores with one secret take each other's URLs."""

    def __init__(
        self, secret: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._key = hmac.digest(secret.encode(), b"lorikeet: where uploads are sent", "sha256")
        self._now = now

    def path(self, grant: Grant) -> str:
        return f"{_signed(grant)}&signature={self._signature(grant)}"

    def grant(self, path: str) -> Grant:
        """What a path that was asked for allows. Raises PermissionDenied."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise PermissionDenied("this is no URL that a store gave")
        grant = Grant(
            found["upload"], int(found["offset"]), int(found["length"]), int(found["expires"])
        )
        if not hmac.compare_digest(self._signature(grant), found["signature"]):
            raise PermissionDenied("this is no URL that a store gave")
        if self._now().timestamp() >= grant.expires:
            raise PermissionDenied("this URL has expired; ask for another")
        return grant

    def _signature(self, grant: Grant) -> str:
        return hmac.new(self._key, _signed(grant).encode(), "sha256").hexdigest()


def _signed(grant: Grant) -> str:
    return (
        f"/uploads/{grant.upload_id}?offset={grant.offset}&length={grant.length}"
        f"&expires={grant.expires}"
    )
