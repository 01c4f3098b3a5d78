"""The corpus: the file that is shipped, how it is made, and what is said of one that is wrong."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.experiments.corpus import DESCRIPTIONS, read_corpus
from examples.corpus.build import ROWS, SECTIONS, WORDS, rows, sample, stanzas, write
from services.core.errors import InvalidRequest

GOOD = {"package": "gnuchess", "text": "plays chess", "label": "games", "source": "Games Team"}
PACKAGES = """\
Package: zoo-b
Source: zoo (1.2)
Maintainer: "Zoo Team" <zoo@lists.example>
Section: games
Description: not this
Description-md5: b

Package: zoo-a
Source: zoo
Maintainer: Zoo Team <zoo@lists.example>
Section: games
Description-md5: a

Package: zoo-fonts
Source: zoo
Maintainer: Zoo Team <zoo@lists.example>
Section: fonts
Description-md5: f

Package: libzoo
Maintainer: A Person <a@person.example>
Section: libs
Description-md5: l
"""
TRANSLATIONS = """\
Package: zoo-a
Description-md5: a
Description-en: animals
 Lions and
 tigers.
 .
 Bears, too.

Package: zoo-b
Description-md5: b
Description-en: more animals

Package: zoo-fonts
Description-md5: f
Description-en: letters of animals

Package: libzoo
Description-md5: l
Description-en: a library
"""


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def test_what_is_shipped_is_what_was_meant() -> None:
    found = read_corpus()
    assert len(found) == 4053
    assert DESCRIPTIONS.stat().st_size < 500_000
    labels = Counter(row.label for row in found)
    assert set(labels) == set(SECTIONS)
    assert max(labels.values()) <= ROWS
    assert max(len(row.text.split()) for row in found) <= WORDS
    assert not any("@" in row.source or "<" in row.source for row in found)


def test_a_row_is_made_of_what_apt_knows() -> None:
    found = rows(stanzas(PACKAGES.splitlines()), stanzas(TRANSLATIONS.splitlines()))
    assert found == [
        {
            "package": "zoo-a", "text": "animals Lions and tigers. Bears, too.",
            "label": "games", "source": "Zoo Team",
        },
        {
            "package": "zoo-fonts", "text": "letters of animals",
            "label": "fonts", "source": "Zoo Team",
        },
    ]  # fmt: skip


def test_the_same_rows_in_any_order_make_the_same_file(tmp_path: Path) -> None:
    many = [GOOD | {"package": f"p{n}", "label": SECTIONS[n % 2]} for n in range(3 * ROWS)]
    one, other = tmp_path / "one.gz", tmp_path / "other.gz"
    write(sample(many), one)
    write(sample(many[::-1]), other)
    assert one.read_bytes() == other.read_bytes()
    assert len(sample(many)) == 2 * ROWS


def test_a_package_more_moves_one_row() -> None:
    many = [GOOD | {"package": f"p{n}"} for n in range(2 * ROWS)]
    before, after = sample(many), sample([*many, GOOD | {"package": "new"}])
    assert sum(row not in before for row in after) <= 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "corpus.jsonl: has no rows"),
        ([GOOD, "{"], "corpus.jsonl:2: is not JSON"),
        ([GOOD, []], "corpus.jsonl:2: must be a JSON object"),
        ([GOOD | {"label": 3}], "corpus.jsonl:1: 'label' must be text"),
        ([GOOD | {"source": " "}], "corpus.jsonl:1: 'source' must be text, and not empty"),
        ([{"package": "x"}], "corpus.jsonl:1: 'text' must be text"),
        ([GOOD, GOOD], "corpus.jsonl:2: has 'gnuchess', as line 1 has"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(lines: list[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_corpus(written(tmp_path, *lines))
    assert f"data: {said}" in str(raised.value)


def test_bytes_that_are_no_text_are_found(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\n")
    with pytest.raises(InvalidRequest, match=r"corpus.jsonl:2: is not UTF-8"):
        read_corpus(path)


@pytest.mark.parametrize("cut", [0.5, 1.0])
def test_a_torn_file_is_found(cut: float, tmp_path: Path) -> None:
    packed = gzip.compress((json.dumps(GOOD) + "\n").encode())
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(packed[: int(cut * len(packed))] if cut < 1 else b"no gzip")
    with pytest.raises(InvalidRequest, match=r"corpus.jsonl.gz:1: cannot be unpacked"):
        read_corpus(path)
