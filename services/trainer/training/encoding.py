"""Examples as tokens, the very ones that a request at the gateway would have."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from services.trainer.examples import Example, bad
from services.trainer.task import Base


@dataclass(frozen=True, slots=True)
class Encoded:
    """`learnt`: the first token that is to be predicted; all after it are."""

    line: int
    tokens: tuple[int, ...]
    learnt: int

    @property
    def targets(self) -> int:
        return len(self.tokens) - self.learnt


class Encoder:
    def __init__(self, base: Base, *, name: str, most_tokens: int) -> None:
        """`name`: of the file, for errors."""
        self._tokenizer: Any = Tokenizer.from_str(base.tokenizer_json)
        fast: Any = PreTrainedTokenizerFast
        self._template = fast(tokenizer_object=self._tokenizer, **base.special_tokens)
        self._template.chat_template = base.chat_template
        self._base = base
        self._name = name
        self._most = min(most_tokens, base.context_tokens)

    def encode(self, example: Example) -> Encoded:
        """Raises InvalidRequest that names the line of what cannot be learnt."""
        if example.messages:
            before, answer = self._turn(example)
        else:
            before = self._ids(example.prompt, special=True)
            answer = self._ids(example.target)
        answer = self._ended(answer)
        tokens = (*before, *answer)
        if len(tokens) > self._most:
            what = f"has {len(tokens)} tokens, more than the {self._most} that fit into one pack"
            raise bad(self._name, example.line, what)
        if len(tokens) < 2:
            raise bad(self._name, example.line, "has nothing to learn")
        return Encoded(example.line, tokens, max(1, len(before)))

    def encode_all(self, examples: Iterable[Example]) -> list[Encoded]:
        return [self.encode(example) for example in examples]

    def _turn(self, example: Example) -> tuple[list[int], list[int]]:
        """What the gateway makes of the messages, and the answer as the template writes it."""
        if not self._base.chat_template:
            asked = "\n".join(message["content"] for message in example.messages) + "\n"
            return self._ids(asked, special=True), self._ids(example.target)
        messages = [dict(message) for message in example.messages]
        prompt = self._rendered(example.line, messages, prompt=True)
        answer = {"role": "assistant", "content": example.target}
        whole = self._rendered(example.line, [*messages, answer], prompt=False)
        said = whole.removeprefix(prompt) if whole.startswith(prompt) else example.target
        return self._ids(prompt), self._ids(said)

    def _rendered(self, line: int, messages: list[dict[str, str]], *, prompt: bool) -> str:
        try:
            return str(
                self._template.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=prompt
                )
            )
        except Exception as error:  # a template is a program, and may raise whatever it likes
            raise bad(self._name, line, f"the chat template says: {error}") from error

    def _ended(self, answer: list[int]) -> list[int]:
        """Up to the first token that ends a text, which a model has to learn to say."""
        ends = self._base.end_tokens
        for index, token in enumerate(answer):
            if token in ends:
                return answer[: index + 1]
        return [*answer, *ends[:1]]

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=special).ids)
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise bad(self._name, 0, f"cannot be tokenised: {error}") from error
