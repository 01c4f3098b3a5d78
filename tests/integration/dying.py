"""Work that ends in a SIGKILL."""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any


def deadly(
    work: Callable[..., Any], when: str, nth: int, die: Callable[[], None]
) -> Callable[..., Any]:
    """Dies the nth time that it is called: `when` is "before" it has done anything, or "after"."""
    left = nth

    def come(phase: str) -> None:
        nonlocal left
        if phase == when:
            left -= 1
            if left == 0:
                die()

    @wraps(work)
    async def later(*given: Any, **named: Any) -> Any:
        come("before")
        result = await work(*given, **named)
        come("after")
        return result

    @wraps(work)
    def now(*given: Any, **named: Any) -> Any:
        come("before")
        result = work(*given, **named)
        come("after")
        return result

    return later if iscoroutinefunction(work) else now
