"""Which tier of service a request has."""

from typing import Literal, get_args

from services.core.errors import InvalidRequest, PermissionDenied
from services.core.types import Tier

TierWord = Literal["auto", "default", "flex", "priority"]
"""As clients ask; "auto" says nothing."""

_HIGHEST_FIRST = tuple(Tier)


def granted(asked: Tier | None, highest: Tier) -> Tier:
    """What was asked for; if nothing was, the default tier, or `highest` if that is lower. Raises
    PermissionDenied for one above `highest`."""
    allowed = _HIGHEST_FIRST[_HIGHEST_FIRST.index(highest) :]
    if asked is None:
        return Tier.DEFAULT if Tier.DEFAULT in allowed else highest
    if asked not in allowed:
        raise PermissionDenied(
            f"this tenant may ask for the service tier {highest.value!r} at most, "
            f"not for {asked.value!r}"
        )
    return asked


def tier_named(word: str, field: str) -> Tier | None:
    """None for "auto". Raises InvalidRequest."""
    words = get_args(TierWord)
    if word not in words:
        raise InvalidRequest.of(field, f"must be one of {', '.join(words)}")
    return None if word == "auto" else Tier(word)
