"""Which server the command line talks to, and as whom."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

Metadata = tuple[tuple[str, str], ...]

TenantOption = Annotated[
    str, typer.Option("--tenant", help="Whose, as the operator. Default: the key's own tenant.")
]

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What `lorikeet up` leaves in its home for the commands that follow."""

    server: str = ""
    http: str = ""
    operator_token: str = ""
    key: str = ""


def home() -> Path:
    return Path(os.environ.get("LORIKEET_HOME", ".lorikeet"))


def read_profile(folder: Path) -> Profile:
    path = folder / "client.json"
    return Profile(**json.loads(path.read_text())) if path.exists() else Profile()


def write_profile(folder: Path, profile: Profile) -> None:
    path = folder / "client.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(profile), indent=1))


def channel() -> grpc.Channel:
    address = os.environ.get("LORIKEET_SERVER") or read_profile(home()).server
    if not address:
        raise typer.BadParameter(
            "no server: set LORIKEET_SERVER=host:port, or run `lorikeet up` here first"
        )
    return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)


def as_operator() -> Metadata:
    token = os.environ.get("LORIKEET_OPERATOR_TOKEN") or read_profile(home()).operator_token
    if not token:
        raise typer.BadParameter("this needs the operator's token: set LORIKEET_OPERATOR_TOKEN")
    return (("authorization", f"Bearer {token}"),)


def as_tenant() -> Metadata:
    key = os.environ.get("LORIKEET_KEY") or read_profile(home()).key
    if not key:
        raise typer.BadParameter("this needs a tenant's key: set LORIKEET_KEY")
    return (("authorization", f"Bearer {key}"),)


def as_either(tenant: str) -> Metadata:
    """The operator when a tenant is named, else whoever the key speaks for."""
    return as_operator() if tenant else as_tenant()


def every(list_page: Any, request: Any, metadata: Metadata, items: str) -> list[Any]:
    """The `items` of all pages of a List method."""
    found: list[Any] = []
    while True:
        page = list_page(request, metadata=metadata)
        found += getattr(page, items)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found
