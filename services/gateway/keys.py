"""Keys and their secrets: what a bearer must show, until when, and what it may do then."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from services.core.errors import InvalidRequest, Unauthenticated
from services.core.types import KeyId, TenantId
from services.runtime.auth import KEY_SCOPES, Scope

_SECRET = re.compile(r"lk_([a-z0-9]{8})_([A-Za-z0-9_-]{43})")
_ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class Replaced:
    """A secret that was replaced, and works until then."""

    secret_hmac: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Key:
    """The secret itself is not kept: only its HMAC-SHA256 under the gateway's pepper."""

    id: KeyId
    tenant: TenantId
    label: str
    secret_hmac: str
    created: datetime
    revoked: datetime | None = None
    expires: datetime | None = None
    scopes: frozenset[Scope] | None = None  # None: all
    previous: Replaced | None = None


class Secrets:
    """Of 256 bits each, and only ever compared by their HMACs."""

    def __init__(self, pepper: str) -> None:
        self._pepper = pepper.encode()

    def fresh(self, key: KeyId) -> tuple[str, str]:
        """A new secret of the key, and its HMAC."""
        secret = f"lk_{key}_{secrets.token_urlsafe(32)}"
        return secret, self._hmac(secret)

    def check(self, key: Key | None, bearer: str, now: datetime) -> Key:
        """The key, if it works and the bearer has its secret. Raises Unauthenticated."""
        given = self._hmac(bearer)
        current = key is not None and hmac.compare_digest(key.secret_hmac, given)
        replaced = None if key is None else key.previous
        previous = replaced is not None and hmac.compare_digest(replaced.secret_hmac, given)
        if key is None or not (current or previous):
            raise Unauthenticated("the key is not known")
        if key.revoked is not None:
            raise Unauthenticated("the key was revoked")
        if key.expires is not None and key.expires <= now:
            raise Unauthenticated("the key has expired")
        if replaced is not None and previous and replaced.until <= now:
            raise Unauthenticated("the key has a new secret, and the time of this one is over")
        return key

    def _hmac(self, secret: str) -> str:
        return hmac.new(self._pepper, secret.encode(), hashlib.sha256).hexdigest()


def fresh_id() -> KeyId:
    return KeyId("".join(secrets.choice(_ID_LETTERS) for _ in range(8)))


def id_in(bearer: str) -> KeyId | None:
    """Of the key that a secret would be of; None: it has not the form of one."""
    form = _SECRET.fullmatch(bearer)
    return KeyId(form[1]) if form else None


def scopes_named(names: Collection[str]) -> frozenset[Scope] | None:
    """None for no names: all. Raises InvalidRequest."""
    known = {scope.value: scope for scope in KEY_SCOPES}
    if unknown := sorted(set(names) - set(known)):
        text = f"{unknown[0]!r} is none of {', '.join(sorted(known))}"
        raise InvalidRequest.of("scopes", text)
    return frozenset(known[name] for name in names) or None
