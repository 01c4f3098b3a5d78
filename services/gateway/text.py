"""Tokens to text, piece by piece, up to a stop text."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class StopText:
    """Finds the first stop text in a stream, holding back what might become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that is certainly not part of a stop text."""
        if not self._stops:
            return text
        self._held += text
        ends = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            self.found = True
            return self._release(min(ends))
        return self._release(len(self._held) - self._undecided())

    def flush(self) -> str:
        return "" if self.found else self._release(len(self._held))

    def _undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = min(len(self._held), max(map(len, self._stops)) - 1)
        return next(
            (
                length
                for length in range(longest, 0, -1)
                if any(stop.startswith(self._held[-length:]) for stop in self._stops)
            ),
            0,
        )

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        return released


class Detokenizer:
    """Text of one completion as its tokens arrive; special tokens have none.

    A character whose bytes are spread over tokens comes with its last one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._tokens: list[int] = []
        self._characters = 0

    def push(self, token: int) -> str:
        self._tokens.append(token)
        text: str = self._stream.step(self._tokenizer, token) or ""
        self._characters += len(text)
        return text

    def flush(self) -> str:
        """What is left when the completion ends inside a character."""
        whole: str = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        return whole[self._characters :]


def token_text(tokenizer: Tokenizer, token: int) -> tuple[str, bytes]:
    """A token's text and bytes by itself, special tokens included."""
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    piece = tokenizer.id_to_token(token) or ""
    if "\ufffd" not in text or any(character not in _BYTES for character in piece):
        return text, text.encode()
    return text, bytes(_BYTES[character] for character in piece)


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, which byte-level vocabularies are written in."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    stand_ins = {chr(256 + index): byte for index, byte in enumerate(others)}
    return {chr(byte): byte for byte in plain} | stand_ins


_BYTES = _byte_characters()
