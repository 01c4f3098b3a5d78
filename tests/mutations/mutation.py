"""A line that keeps an invariant, broken."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """`before` becomes `after` in services/`file`; `test` must then fail."""

    file: str
    before: str
    after: str
    test: str
