"""Fuzzes the store's validation, led by coverage: python -m tests.fuzz.coverage_guided CORPUS

Needs atheris, which is in no requirements: pip install atheris==3.0.0. CORPUS is a folder that
keeps what reached new code between runs. Every input is judged; peft is asked about one in so many.
"""

import argparse
import os
import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["services.adapter_store", "regex._regex_core", "regex._main", "json"]
):
    from services.adapter_store import canonical, peft, validation  # noqa: F401

from tests.fuzz.adapters import from_bytes, judge
from tests.fuzz.oracle import check

MOST_MEGABYTES = 4096


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.fuzz.coverage_guided"
    )
    parser.add_argument("corpus", metavar="CORPUS", type=Path)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--peft-every", type=int, default=10, help="1 asks peft about all")
    asked = parser.parse_args()
    asked.corpus.mkdir(parents=True, exist_ok=True)

    def one_input(data: bytes) -> None:
        case = from_bytes(data)
        asks_peft = zlib.crc32(data) % asked.peft_every == 0
        (check if asks_peft else judge)(case.config_json, case.data)

    options = [
        f"-max_total_time={asked.seconds}",
        "-max_len=256",
        "-timeout=10",
        f"-rss_limit_mb={MOST_MEGABYTES}",
        f"-artifact_prefix={asked.corpus}{os.sep}failed-",
    ]
    atheris.Setup([sys.argv[0], *options, str(asked.corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
