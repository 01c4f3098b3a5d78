"""What parsers disagree about is refused, and the path is named."""

import pytest

from services.core.errors import InvalidRequest
from services.gateway.strict_json import loads


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (
            b'{"a": [1, 2.5, "\\u00e9\\ud83d\\ude00", null, true]}',
            {"a": [1, 2.5, "é😀", None, True]},
        ),
        (b'"x"', "x"),
        (b"5", 5),
        (b"null", None),
    ],
)
def test_good_json_is_read(body: bytes, value: object) -> None:
    assert loads(body, "body") == value


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (b"", "body", "not JSON"),
        (b"{", "body", "not JSON"),
        (b'{"a": NaN}', "body", "NaN"),
        (b'{"a": -Infinity}', "body", "Infinity"),
        (b'{"a": 1, "b": 2, "a": 3}', "body", "'a' twice"),
        (b'{"a": {"b": ["x", "\\ud800"]}}', "a.b[1]", "Unicode"),
        (b'{"\\udc00": 1}', "body", "Unicode"),
        (b'"\\ud800"', "body", "Unicode"),
        (b"\xff\xfe", "body", "UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "body", "UTF-8"),
        (b"[" * 65 + b"]" * 65, "body", "deep"),
        (b"[" * 100_000, "body", "deep"),
        (b"1" * 5000, "body", "not JSON"),
    ],
)
def test_the_rest_is_refused(body: bytes, field: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        loads(body, "body")
    assert caught.value.violations[0].field == field


def test_sixty_four_levels_are_not_too_deep() -> None:
    assert loads(b"[" * 64 + b"]" * 64, "body")
