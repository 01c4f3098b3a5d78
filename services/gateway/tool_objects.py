"""One object that may be a call, read character by character: {"name": ..., "arguments": {...}}."""

import json
from collections.abc import Collection
from enum import Enum, auto

from services.core.errors import InvalidRequest
from services.gateway.strict_json import loads

_ARGUMENTS = ("arguments", "parameters")


class State(Enum):
    READING = auto()  # nobody knows yet whether it is a call
    CALLED = auto()  # it is, and its arguments are on their way
    DONE = auto()
    FAILED = auto()  # no call; or, after CALLED, no more of it


class _Phase(Enum):
    OPENING = auto()
    KEY = auto()
    COLON = auto()
    VALUE = auto()


class CallObject:
    """Other keys may be there and are passed over. Arguments are passed on as they are written,
    once the function is known; they may also be a string that holds their JSON.
    """

    def __init__(self, names: Collection[str], *, needs_arguments: bool) -> None:
        self.state = State.READING
        self.name = ""
        self._names = names
        self._needs_arguments = needs_arguments
        self._phase = _Phase.OPENING
        self._key = ""
        self._value = ""  # or the key that is being read, so far
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._streaming = False
        self._early: str | None = None  # arguments that came before the name

    def push(self, character: str) -> str:
        """The next piece of the arguments. Not for an object that is DONE or FAILED."""
        if self._phase is _Phase.OPENING:
            self._phase = _Phase.KEY
            return ""
        if self._value:
            return self._go_on(character)
        if character.isspace():
            return ""
        return self._begin(character)

    def _begin(self, character: str) -> str:
        """What stands where a key, a colon or a value should begin."""
        match self._phase:
            case _Phase.KEY if character == "}":
                return self._end()
            case _Phase.KEY if character == ",":
                return ""
            case _Phase.KEY if character == '"':
                return self._go_on(character)
            case _Phase.COLON if character == ":":
                self._phase = _Phase.VALUE
                return ""
            case _Phase.VALUE if character not in ",:}]":
                is_arguments = self._key in _ARGUMENTS and self.state is State.READING
                self._streaming = is_arguments and bool(self.name) and character == "{"
                if self._streaming:
                    self.state = State.CALLED
                return self._go_on(character)
        return self._fail()

    def _go_on(self, character: str) -> str:
        """One more character of a key or a value."""
        bare = self._depth == 0 and not self._in_string and self._value  # a number, true, null
        if bare and (character in ",}" or character.isspace()):
            ended = self._ended()
            if self.state is not State.FAILED and character == "}":
                ended += self._end()
            return ended
        self._value += character
        self._track(character)
        passed = character if self._streaming else ""
        if self._depth == 0 and not self._in_string and character in '"}]':
            return passed + self._ended()
        return passed

    def _track(self, character: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1

    def _ended(self) -> str:
        """A key or a value is whole."""
        whole, self._value = self._value, ""
        if self._phase is _Phase.KEY:
            return self._keyed(_string(whole))
        self._phase = _Phase.KEY
        if self._streaming or self.state is State.CALLED:
            self._streaming = False
            return ""
        if self._key == "name":
            return self._named(_string(whole))
        return self._arguments(whole) if self._key in _ARGUMENTS else ""

    def _keyed(self, key: str | None) -> str:
        if key is None:
            return self._fail()
        self._key, self._phase = key, _Phase.COLON
        return ""

    def _named(self, name: str | None) -> str:
        if name is None or name not in self._names:
            return self._fail()
        self.name = name
        if self._early is None:
            return ""
        self.state = State.CALLED
        return self._early

    def _arguments(self, whole: str) -> str:
        text = whole if whole.startswith("{") else _unwrapped(whole)
        if text is None:
            return self._fail()
        if not self.name:
            self._early = text
            return ""
        self.state = State.CALLED
        return text

    def _end(self) -> str:
        if self.state is State.CALLED:
            self.state = State.DONE
            return ""
        if not self.name or self._needs_arguments:
            return self._fail()
        self.state = State.DONE
        return "{}"

    def _fail(self) -> str:
        self.state = State.FAILED
        return ""


def _string(text: str) -> str | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def _unwrapped(text: str) -> str | None:
    """Arguments inside a string, or null for none."""
    if text == "null":
        return "{}"
    inner = _string(text)
    try:
        return inner if inner is not None and isinstance(loads(inner, ""), dict) else None
    except InvalidRequest:
        return None
