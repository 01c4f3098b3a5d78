"""Options that say where a version comes from, the same for every command that makes one."""

from collections.abc import Sequence
from typing import Annotated

import typer

from lorikeet.types.v1.adapter_pb2 import Provenance

Labels = Annotated[
    list[str] | None, typer.Option("--label", help="A label, NAME=VALUE; may be repeated.")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help="A measured value, NAME=NUMBER; may be repeated."),
]
Licence = Annotated[str, typer.Option(help="Its licence.")]
Job = Annotated[str, typer.Option(help="The job that made it.")]
Parents = Annotated[
    list[str] | None,
    typer.Option("--parent", help="Digest of what it was made from; may be repeated."),
]


def declared(
    label: Labels, metric: Metrics, licence: Licence, job: Job, parent: Parents
) -> Provenance:
    """Raises typer.BadParameter."""
    return Provenance(
        job=job, licence=licence, parents=parent, labels=pairs(label), metrics=_numbers(metric)
    )


def pairs(given: Sequence[str] | None) -> dict[str, str]:
    """Raises typer.BadParameter."""
    found = {}
    for item in given or ():
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{item!r}: write it as NAME=VALUE")
        found[name] = value
    return found


def _numbers(given: Sequence[str] | None) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in pairs(given).items()}
    except ValueError as error:
        raise typer.BadParameter("write it as NAME=NUMBER") from error
