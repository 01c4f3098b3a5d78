"""An adapter that is being made up, by choices from hypothesis or from bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from services.gpu_worker.model import config as model_config
from tests.cards import CARD
from tests.tiny_models import configs

T = TypeVar("T")
MAX_RANK = 16
NETWORK = model_config.read_config(
    configs()["llama"].to_dict() | {"architectures": ["LlamaForCausalLM"]}
)
BASE = replace(CARD, modules=NETWORK.modules())
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Choices(Protocol):
    """Where a generator's decisions come from."""

    def whole(self, low: int, high: int) -> int:
        """Both included."""
        ...

    def blob(self, length: int) -> bytes: ...


class ByteChoices:
    """Decisions read off bytes; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def whole(self, low: int, high: int) -> int:
        width = ((high - low).bit_length() + 7) // 8
        return low + int.from_bytes(self.blob(width), "little") % (high - low + 1)

    def blob(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken.ljust(length, b"\0")


class DrawnChoices:
    def __init__(self, draw: Callable[..., Any]) -> None:
        self._draw = draw

    def whole(self, low: int, high: int) -> int:
        return int(self._draw(st.integers(low, high)))

    def blob(self, length: int) -> bytes:
        return bytes(self._draw(st.binary(min_size=length, max_size=length)))


def pick(choices: Choices, options: Sequence[T]) -> T:
    return options[choices.whole(0, len(options) - 1)]


@dataclass(slots=True)
class Entry:
    """A tensor as a safetensors header has it; any value may be wrong."""

    name: str
    dtype: Any
    shape: Any
    data: bytes
    offsets: Any = None  # by the order of the entries unless given


@dataclass(slots=True)
class Draft:
    config: dict[str, Any]
    entries: list[Entry]
    metadata: Any = None
    tail: bytes = b""
    config_text: str | None = None  # instead of `config`
    file_damage: list[Callable[[bytes], bytes]] = field(default_factory=list)
