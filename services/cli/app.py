"""The `lorikeet` command."""

import typer

from services.cli import (
    adapters,
    federating,
    jobs,
    keys,
    placement,
    queue,
    quotas,
    tenants,
    usage,
    workers,
)
from services.cli.chat import chat
from services.cli.demo import demo, up
from services.cli.migrations import migrations
from services.cli.training import train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Serve many LoRA adapters to many tenants. LORIKEET_SERVER, LORIKEET_KEY and "
    "LORIKEET_OPERATOR_TOKEN say where and as whom; after `lorikeet up` in this folder they are "
    "known. Exit codes: 1 refused, 2 wrong usage, 3 unreachable, 4 not allowed.",
)
app.command()(up)
app.command()(demo)
app.command()(chat)
app.add_typer(tenants.tenants, name="tenants")
app.add_typer(keys.app, name="keys")
app.add_typer(quotas.app, name="quotas")
app.add_typer(adapters.app, name="adapters")
app.command()(train)
app.add_typer(federating.app, name="federate")
app.add_typer(jobs.app, name="jobs")
app.add_typer(workers.app, name="workers")
app.add_typer(placement.app, name="placement")
app.command()(migrations)
app.add_typer(queue.app, name="queue")
app.add_typer(usage.app, name="usage")
app.command()(usage.explain)


def main() -> None:
    app()
