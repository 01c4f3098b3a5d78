"""How an answer is cut into pieces changes neither its text nor its calls."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.tool_calls import CallFinder

NAMES = ("f", "g")
PARTS = [
    "<tool_call>", "</tool_call>", "<tool_", "call>", "<", "{", "}", "[", "]", '"', "\\", ":", ",",
    ";", " ", "\n", "x", "é", '{"name": "f", "arguments": {"a": "}"}}', '{"name": "g"}', '"name"',
    '"f"', '"arguments"', '"parameters"', "null", "1.5", '{"a": [1, "{"]}', '"{\\"b\\": 2}"',
]  # fmt: skip

Outcome = tuple[str, list[tuple[str, str]]]


def outcome(pieces: list[str]) -> Outcome:
    finder = CallFinder(NAMES)
    said, calls = "", list[tuple[str, str]]()
    for piece in pieces:
        text, parts = finder.push(piece)
        said += text
        for part in parts:
            if part.index == len(calls):
                assert part.name in NAMES
                calls.append((part.name, ""))
            name, arguments = calls[part.index]
            calls[part.index] = (name, arguments + part.arguments)
    return said + finder.flush(), calls


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.data())
def test_any_split_gives_the_same(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert outcome(pieces) == outcome(list(text)) == outcome([text])


@given(st.lists(st.sampled_from(PARTS), max_size=30))
def test_what_holds_no_call_is_unchanged(parts: list[str]) -> None:
    text = "".join(parts)
    said, calls = outcome([text])
    if not calls:
        assert said == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.dictionaries(st.text(), json_values, max_size=3)),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["tags", "list", "bare"]),
    st.sampled_from(["arguments", "parameters"]),
    st.booleans(),
)
def test_calls_come_back_as_they_were_written(
    calls: list[tuple[str, dict[str, Any]]], form: str, key: str, ascii_only: bool
) -> None:
    written = [
        json.dumps({"name": name, key: arguments}, ensure_ascii=ascii_only)
        for name, arguments in calls
    ]
    text = {
        "tags": "\n".join(f"<tool_call>\n{each}\n</tool_call>" for each in written),
        "list": f"[{', '.join(written)}]",
        "bare": "; ".join(written),
    }[form]
    said, found = outcome([text])
    assert said == ""
    assert [(name, json.loads(arguments)) for name, arguments in found] == calls
