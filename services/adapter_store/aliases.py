"""What an alias may mean next. Pure: the repository reads, asks here, and writes."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from services.adapter_store.records import Canary, Move, MoveKind, Split, Target
from services.core.errors import FailedPrecondition, InvalidRequest
from services.core.types import TenantId

PRODUCTION = "production"  # what a name without more means, once it is set

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")
_LIKE_A_DIGEST = re.compile(r"[0-9a-f]{12,64}")
_PARTS = 10_000  # what a draw is fine to


@dataclass(frozen=True, slots=True)
class Change:
    """The next generation of an alias, before it has a number."""

    kind: MoveKind
    target: Target | None
    undo: int | None


Decide = Callable[[Move | None, Move | None], Change | None]
"""From an alias's newest generation, and the one that a rollback goes back to, to the next; None
if it stays as it is."""


def check_name(alias: str) -> None:
    """Raises InvalidRequest for a name that "adapter@..." could not mean."""
    if not _NAME.fullmatch(alias) or _LIKE_A_DIGEST.fullmatch(alias):
        raise InvalidRequest.of(
            "alias",
            "1 to 63 of a-z, 0-9, -, _ and ., starting with a letter, and not like a digest",
        )


def pointed(now: Move | None, number: int, kind: MoveKind) -> Change | None:
    """To one version, whatever it was; None if that is what it means already."""
    current = None if now is None else now.target
    if current == Target(number):
        return None
    if now is None or current is None:
        return Change(kind, Target(number), None)
    # The end of a canary in favour of what was stable leaves what was before that to go back to.
    return Change(kind, Target(number), now.undo if current.number == number else now.generation)


def promoted(now: Move | None, number: int | None) -> Change | None:
    """To a version, or to the canary that runs. Raises FailedPrecondition if none does."""
    if number is None:
        if now is None or now.target is None or now.target.canary is None:
            raise FailedPrecondition("no canary is running; name the version to promote")
        number = now.target.canary.number
    return pointed(now, number, MoveKind.PROMOTE)


def with_canary(now: Move | None, number: int, percent: int, split: Split) -> Change | None:
    """Beside what is stable; 0 percent ends it. Raises InvalidRequest or FailedPrecondition."""
    if not 0 <= percent <= 99:
        raise InvalidRequest.of("percent", "must be 0 to 99; promote the canary to give it all")
    if now is None or now.target is None:
        raise FailedPrecondition("the alias points nowhere; a canary needs a stable version")
    if percent and number == now.target.number:
        raise InvalidRequest.of("canary", "is the stable version already")
    canary = Canary(number, percent, split) if percent else None
    target = Target(now.target.number, canary)
    return None if target == now.target else Change(MoveKind.CANARY, target, now.undo)


def rolled_back(now: Move | None, undone: Move | None) -> Change:
    """A running canary ends; else to where `undone`, the generation `now.undo`, pointed.

    So each rollback goes one promotion further back, and never forward again.
    """
    if now is None or now.target is None:
        raise FailedPrecondition("the alias points nowhere; there is nothing to roll back")
    if now.target.canary is not None:
        return Change(MoveKind.ROLLBACK, Target(now.target.number), now.undo)
    if undone is None or undone.target is None:
        raise FailedPrecondition("the alias has no earlier version to roll back to")
    return Change(MoveKind.ROLLBACK, Target(undone.target.number), undone.undo)


def deleted(now: Move | None) -> Change | None:
    return None if now is None or now.target is None else Change(MoveKind.DELETE, None, None)


def drawn(target: Target, alias: str, *, tenant: TenantId, request: str) -> int:
    """The version number that a request gets.

    A tenant that has a canary keeps it while its percentage grows: the draw depends on nothing
    that grows with it.
    """
    canary = target.canary
    if canary is None:
        return target.number
    key = tenant if canary.split is Split.TENANT else request
    draw = hashlib.sha256(f"{alias}\0{canary.number}\0{key}".encode()).digest()
    part = int.from_bytes(draw[:8]) * _PARTS >> 64
    return canary.number if part < canary.percent * _PARTS // 100 else target.number
