"""Makes descriptions.jsonl.gz of Debian's package descriptions, as apt knows them.

python examples/corpus/build.py [--suite bookworm] [--lists FOLDER] [--out FILE]

Without --lists it has apt fetch them into a folder of its own (about 16 MB); apt's own stay as they
are. The same lists give the same file, byte for byte.
"""

import argparse
import gzip
import hashlib
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE / "descriptions.jsonl.gz"
WORDS = 40  # of a description, from its beginning
ROWS = 230  # of a section, at most
# Of Debian's 57: those that a description tells apart. Others are vague (misc, utils, libs) or
# trivial (python, perl: their name is in every description).
SECTIONS = (
    "admin", "database", "editors", "electronics", "fonts", "games", "gnome", "graphics",
    "hamradio", "kde", "mail", "math", "net", "otherosfs", "science", "sound", "text", "video",
    "web", "x11",
)  # fmt: skip

Stanza = Mapping[str, str]
Row = Mapping[str, str]


def fetch(lists: Path) -> None:
    """Raises subprocess.CalledProcessError."""
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    folders = [f"Dir::State::lists={lists}", f"Dir::Cache={lists.parent / 'cache'}"]
    options = [*folders, "Acquire::Languages=en", "APT::Sandbox::User=root"]
    flags = [part for option in options for part in ("-o", option)]
    subprocess.run(["apt-get", "--quiet", *flags, "update"], check=True)


def stanzas(lines: Iterable[str]) -> Iterator[Stanza]:
    """Of a control file (deb822): fields by name, with all of their lines."""
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        text = line.rstrip("\n")
        if not text.strip():
            if found:
                yield found
            found = {}
        elif text[0] in " \t":
            found[name] += "\n" + text
        else:
            name, _, value = text.partition(":")
            found[name] = value.strip()
    if found:
        yield found


def rows(packages: Iterable[Stanza], translations: Iterable[Stanza]) -> list[Row]:
    """One for every source and section: packages of one source say nearly the same."""
    described = {each["Description-md5"]: each.get("Description-en", "") for each in translations}
    found: dict[tuple[str, str], Row] = {}
    for package in sorted(packages, key=lambda each: each["Package"]):
        section = package.get("Section", "")
        source = package.get("Source", package["Package"]).split()[0]
        text = beginning(described.get(package.get("Description-md5", ""), ""))
        if section in SECTIONS and text:
            row = {
                "package": package["Package"], "text": text, "label": section,
                "source": team(package["Maintainer"]),
            }  # fmt: skip
            found.setdefault((source, section), row)
    return list(found.values())


def beginning(description: str) -> str:
    """Words, without the marks of paragraphs."""
    return " ".join([word for word in description.split() if word != "."][:WORDS])


def team(maintainer: str) -> str:
    """Without the address."""
    return re.sub(r"<[^>]*>,?", "", maintainer).strip().strip('"')


def sample(found: Sequence[Row]) -> list[Row]:
    """At most so many of a section, by the order of their names' hashes: a package that comes or
    goes changes one row."""
    taken: Counter[str] = Counter()
    kept = []
    for row in sorted(found, key=lambda each: hashlib.sha256(each["package"].encode()).digest()):
        if taken[row["label"]] < ROWS:
            taken[row["label"]] += 1
            kept.append(row)
    return sorted(kept, key=lambda each: (each["label"], each["package"]))


def write(kept: Iterable[Row], out: Path) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    out.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def read(lists: Path, pattern: str) -> Iterator[Stanza]:
    """Of the first list of that name, unpacked by apt. Raises SystemExit."""
    for path in sorted(lists.glob(pattern)):
        helper = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
        done = subprocess.run(helper, check=True, capture_output=True)
        return stanzas(done.stdout.decode().splitlines())
    raise SystemExit(f"{lists}: has no {pattern}: do apt's sources name that suite?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--lists", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lists = asked.lists or Path(folder) / "lists"
        if not asked.lists:
            fetch(lists)
        main_of = f"*_dists_{asked.suite}_main_"
        packages = read(lists, f"{main_of}binary-*_Packages*")
        found = rows(packages, read(lists, f"{main_of}i18n_Translation-en*"))
    kept = sample(found)
    write(kept, asked.out)
    print(f"{asked.out.name}: {len(kept)} of {len(found)} rows, {asked.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
