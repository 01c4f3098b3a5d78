"""The committed code is what the .proto files make."""

import filecmp
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_generated_code_is_current(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "generate_protos.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, capture_output=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*_pb2*.py*"))
    assert len(made) >= 28
    stale = [
        str(path)
        for path in made
        if not filecmp.cmp(tmp_path / path, ROOT / "protos" / path, shallow=False)
    ]
    assert stale == [], "run `make protos`"
