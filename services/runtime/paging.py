"""Pages of a sorted listing (AIP-158): opaque tokens that hold the last key shown."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.core.errors import InvalidRequest

DEFAULT_SIZE = 50
MOST = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """Up to `size` entries whose key sorts after `after`."""

    size: int
    after: str

    @property
    def before(self) -> int | None:
        """For listings of numbers that fall: those below it. Raises InvalidRequest."""
        if self.after and not (self.after.isascii() and self.after.isdigit()):
            raise InvalidRequest.of("page_token", "not a token of this service")
        return int(self.after) if self.after else None

    @classmethod
    def asked(cls, page_size: int, page_token: str) -> "Page":
        """Raises InvalidRequest for a negative size or a token that we did not make."""
        if page_size < 0:
            raise InvalidRequest.of("page_size", "must not be negative")
        try:
            after = base64.urlsafe_b64decode(page_token.encode()).decode()
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest.of("page_token", "not a token of this service") from error
        return cls(min(page_size or DEFAULT_SIZE, MOST), after)


def page_of(found: Sequence[T], page: Page, *, key: Callable[[T], str]) -> tuple[list[T], str]:
    """The page and the token of the next one, given up to one entry more than fits."""
    shown = list(found[: page.size])
    more = len(found) > page.size
    return shown, base64.urlsafe_b64encode(key(shown[-1]).encode()).decode() if more else ""
