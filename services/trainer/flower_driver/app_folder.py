"""The Flower app that a job runs: it names our ServerApp and ClientApp, and has no other code."""

from pathlib import Path

PACKAGE = "lorikeet_federation"

_PROJECT = f"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{PACKAGE.replace("_", "-")}"
version = "0.1.0"
description = "Lorikeet's federated training"
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "lorikeet"

[tool.flwr.app.components]
serverapp = "{PACKAGE}.server_app:app"
clientapp = "{PACKAGE}.client_app:app"

[tool.flwr.app.config]
"""

_FILES = {
    "pyproject.toml": _PROJECT,
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/server_app.py": "from services.trainer.flower import server\n\napp = server.app\n",
    f"{PACKAGE}/client_app.py": "from services.trainer.flower import client\n\napp = client.app\n",
}


def write_app(folder: Path) -> Path:
    for name, text in _FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder
