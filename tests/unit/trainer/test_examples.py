"""What is read out of files, and what is said of bad ones."""

import json
from pathlib import Path

import pytest

from services.core.errors import InvalidRequest
from services.trainer.examples import Example, read_examples
from services.trainer.jobs import DataKind

USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "ahoy"}


def read(folder: Path, name: str, text: str | bytes) -> tuple[DataKind, list[Example]]:
    path = folder / "content"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    kind, examples = read_examples(path, name)
    return kind, list(examples)


def test_every_answer_of_a_conversation_is_learnt(tmp_path: Path) -> None:
    row = json.dumps({"messages": [USER, ASSISTANT, USER, ASSISTANT | {"content": "arrr"}]})
    kind, examples = read(tmp_path, "a.jsonl", "\n" + row + "\n")
    assert kind is DataKind.CHAT
    assert examples == [
        Example(2, "ahoy", (USER,)),
        Example(2, "arrr", (USER, ASSISTANT, USER)),
    ]


def test_instructions_have_an_input_or_not(tmp_path: Path) -> None:
    rows = [
        {"instruction": "add", "input": "1 2", "output": "3"},
        {"instruction": "sing", "output": "la"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    kind, (first, second) = read(tmp_path, "a.jsonl", text)
    assert kind is DataKind.INSTRUCTION
    assert first == Example(1, "3", ({"role": "user", "content": "add\n\n1 2"},))
    assert second == Example(2, "la", ({"role": "user", "content": "sing"},))


def test_csv_names_its_columns_and_counts_lines(tmp_path: Path) -> None:
    text = '\ufefftext,label,other\n"two\nlines",1,x\n"a ""b""",games,y\n'
    kind, (first, second) = read(tmp_path, "A.CSV", text)
    assert kind is DataKind.CLASSIFICATION
    assert first == Example(3, "1", ({"role": "user", "content": "two\nlines"},))
    assert (second.line, second.target) == (4, "games")
    assert second.messages[0]["content"] == 'a "b"'


def test_completions_and_plain_text_have_no_messages(tmp_path: Path) -> None:
    assert read(tmp_path, "a.jsonl", '{"prompt": "a", "completion": "b"}') == (
        DataKind.COMPLETION,
        [Example(1, "b", prompt="a")],
    )
    assert read(tmp_path, "a.csv", "text\nall of it\n") == (
        DataKind.TEXT,
        [Example(2, "all of it")],
    )


GOOD = '{"instruction": "a", "output": "b"}\n'


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("d.jsonl", "", "d.jsonl: has no rows"),
        ("d.jsonl", "\n \n", "d.jsonl: has no rows"),
        ("d.csv", "text,label\n", "d.csv: has no rows"),
        ("d.txt", GOOD, "d.txt: must end with .jsonl or .csv"),
        ("d.jsonl", '{"q": "a", "a": "b"}\n', "d.jsonl:1: has 'q', 'a'; it must have messages"),
        ("d.csv", "q,a\n1,2\n", "d.csv:2: has 'q', 'a'; it must have messages"),
        ("d.jsonl", GOOD + "{]\n", "d.jsonl:2: is not JSON"),
        ("d.jsonl", GOOD + "[1]\n", "d.jsonl:2: must be a JSON object"),
        ("d.jsonl", GOOD + '{"instruction": "a"}', "d.jsonl:2: 'output' is missing"),
        ("d.jsonl", '{"instruction": "a", "output": " "}', "d.jsonl:1: 'output' is empty"),
        ("d.jsonl", '{"text": "a", "label": null}', "d.jsonl:1: 'label' is missing"),
        ("d.jsonl", '{"instruction": 1, "output": "b"}', "d.jsonl:1: 'instruction' must be text"),
        ("d.jsonl", GOOD.encode() + b'{"instruction": "\xff"}', "d.jsonl:2: is not UTF-8"),
        ("d.csv", "text,label\na,b,c\n", "d.csv:2: has more fields"),
        ("d.csv", 'text,label\n"a"x,b\n', "d.csv:2: is not CSV"),
        ("d.csv", "text,label\na\n", "d.csv:2: 'label' is missing"),
        ("d.jsonl", '{"messages": []}', "d.jsonl:1: 'messages' must be a list"),
        ("d.jsonl", '{"messages": [{"role": "x"}]}', "d.jsonl:1: messages[0] must have a role"),
        ("d.jsonl", json.dumps({"messages": [USER]}), "d.jsonl:1: the assistant says nothing"),
        ("d.jsonl", json.dumps({"messages": [ASSISTANT]}), "d.jsonl:1: messages[0] answers"),
    ],
)  # fmt: skip
def test_what_is_bad_is_named_by_file_and_line(
    tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(tmp_path, name, text)
    assert said in caught.value.message
