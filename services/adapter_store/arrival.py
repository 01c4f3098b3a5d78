"""What is known of an upload's first bytes without reading them again: their hash, and whether the
values among them are finite."""

import hashlib
from itertools import accumulate

import numpy as np

from services.adapter_store.arrangement import Arrangement, Part
from services.adapter_store.tensors import ELEMENTS, is_finite, item_bytes
from services.adapter_store.validation import not_finite
from services.core.errors import FieldViolation


class Arrival:
    """Of the first `done` bytes. Without an arrangement nothing is known of values."""

    def __init__(self, arrangement: Arrangement | None = None) -> None:
        self.arrangement = arrangement
        self.done = 0
        self._digest = hashlib.sha256()
        self._parts = () if arrangement is None else arrangement.parts
        start = 0 if arrangement is None else len(arrangement.head)
        self._starts = list(accumulate((part.size_bytes for part in self._parts), initial=start))
        self._next = 0  # the part that the next byte belongs to, if it is behind the head
        self._rest = b""  # the beginning of an element that was cut
        self._wrong: set[Part] = set()

    def take(self, data: memoryview, start: int) -> None:
        """What does not follow is left for later."""
        if start == self.done:
            self._digest.update(data)
            self._watch(data)
            self.done += len(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def not_finite(self) -> list[FieldViolation]:
        return [
            not_finite(part.path, "B" if part.is_transposed else "A", part.scaling)
            for part in self._parts
            if part in self._wrong
        ]

    def _watch(self, data: memoryview) -> None:
        at = self.done
        if at < self._starts[0]:
            data, at = data[self._starts[0] - at :], self._starts[0]
        while data and self._next < len(self._parts):
            part, end = self._parts[self._next], self._starts[self._next + 1]
            values, data = data[: end - at], data[end - at :]
            at += len(values)
            self._look(part, values)
            self._next += at == end

    def _look(self, part: Part, values: memoryview) -> None:
        width = item_bytes(part.dtype)
        if self._rest or len(values) % width:
            whole = self._rest + bytes(values)
            end = len(whole) - len(whole) % width
            values, self._rest = memoryview(whole)[:end], whole[end:]
        if not is_finite(part.dtype, np.frombuffer(values, ELEMENTS[part.dtype]), part.scaling):
            self._wrong.add(part)
