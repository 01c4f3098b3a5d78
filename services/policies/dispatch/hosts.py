"""Which adapters are where before the first request (dLoRA, OSDI'24): each has a host, and as many
spare ones as there are workers less one, on the emptiest workers. That is what its burst tolerance
comes to while nothing is known of the demand."""

from collections.abc import Sequence

from services.core.types import Digest


def spread(adapters: Sequence[Digest], workers: int, *, slots: int) -> list[set[Digest]]:
    """By worker. Raises ValueError if not every adapter has a slot."""
    if len(adapters) > workers * slots:
        raise ValueError("there are more adapters than slots")
    hosted: list[set[Digest]] = [set() for _ in range(workers)]
    spares = min(workers - 1, workers * slots - len(adapters), len(adapters) * (workers - 1))
    for number in range(len(adapters) + spares):
        adapter = adapters[number % len(adapters)]
        able = [each for each in hosted if adapter not in each and len(each) < slots]
        if able:
            min(able, key=len).add(adapter)
    return hosted
