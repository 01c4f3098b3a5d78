"""Writes the Python code of every .proto beside it, or into another folder.

python scripts/generate_protos.py [OUT]
"""

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent.parent
PROTOS = ROOT / "protos"
BUNDLED = Path(protoc.__file__).parent / "_proto"


def generate(out: Path) -> None:
    sources = sorted(str(path) for path in PROTOS.rglob("*.proto"))
    plugins = Path(sys.executable).parent
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{BUNDLED}",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out={out}",
            f"--mypy_grpc_out={out}",
            *sources,
        ]
    )
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS)
