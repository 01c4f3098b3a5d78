"""What a participant does in a round, with its own rows, which stay here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.core.errors import FailedPrecondition
from services.trainer.examples import Example, bad, read_examples
from services.trainer.flower.sites import Answer, Brief, Order
from services.trainer.jobs import DataKind


@dataclass(frozen=True, slots=True)
class Site:
    """As its SuperNode was started: rows, the base model's files, and their fingerprint."""

    name: str
    data: Path
    base: Path
    fingerprint: str
    threads: int = 0


def work(site: Site, order: Order, brief: Brief) -> Answer:
    """Raises ServingError that says what is wrong here."""
    if site.name != order.client:
        raise FailedPrecondition(f"this is {site.name}, not {order.client}")
    if site.fingerprint != brief.base.fingerprint:
        raise FailedPrecondition(f"its base model is not the {brief.base.name} that is trained")
    examples = rows_of(site, brief.labels)
    # Bad rows are said before torch is loaded.
    from services.trainer.training.locally import learn  # noqa: PLC0415

    arrays, metrics = learn(
        order.plan, order.arrays, examples, brief, base=site.base, data=site.data.name,
        threads=site.threads, round_number=order.round,
    )  # fmt: skip
    return Answer(
        order.client,
        order.round,
        order.attempt,
        arrays,
        len(examples),
        metrics,
        hashlib.sha256(site.data.read_bytes()).hexdigest(),
        len({each.line for each in examples}),
    )


def rows_of(site: Site, labels: Sequence[str]) -> list[Example]:
    """Raises InvalidRequest that names file and line."""
    name = site.data.name
    if not site.data.is_file():
        raise bad(name, 0, "is not there")
    if not site.data.stat().st_size:
        raise bad(name, 0, "is empty")
    kind, examples = read_examples(site.data, name)
    found = list(examples)
    if labels and kind is DataKind.CLASSIFICATION:
        for each in found:
            if each.target not in labels:
                known = ", ".join(map(repr, labels))
                raise bad(name, each.line, f"the label {each.target!r} is none of {known}")
    return found
