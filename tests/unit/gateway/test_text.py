import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from services.gateway.text import Detokenizer, StopText, token_text


def bytes_tokenizer() -> Tokenizer:
    """One token a byte, so that characters are spread over tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4)))
def test_the_text_ends_before_the_first_stop_text(text: str, stops: list[str]) -> None:
    stop = StopText(stops)
    out = ""
    for character in text:
        out += stop.push(character)
        if stop.found:
            break
    out += stop.flush()
    found = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stops)]
    assert stop.found == bool(found)
    if not found:
        assert out == text
    else:
        end = found[0]
        assert out == text[: min(end - len(s) for s in stops if text[:end].endswith(s))]


@given(st.text(max_size=40))
def test_pieces_add_up_to_the_whole_text(text: str) -> None:
    tokenizer = bytes_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    tokens = tokenizer.encode(text).ids
    assert "".join([detokenizer.push(token) for token in tokens] + [detokenizer.flush()]) == text


def test_a_completion_that_ends_inside_a_character_keeps_a_replacement() -> None:
    tokenizer = bytes_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    tokens = tokenizer.encode("é").ids
    assert detokenizer.push(tokens[0]) + detokenizer.flush() == "\ufffd"


@pytest.mark.parametrize("text", ["a", " ", "é", "日"])
def test_a_tokens_bytes_are_its_own(text: str) -> None:
    tokenizer = bytes_tokenizer()
    raw = b"".join(token_text(tokenizer, token)[1] for token in tokenizer.encode(text).ids)
    assert raw == text.encode()
