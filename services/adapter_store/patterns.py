"""Tenants' regular expressions over module paths: as PEFT reads them, within a budget.

The regex package can stop a match in time, re cannot. What only one of them reads is refused.
"""

import re
import time

import regex

from services.core.errors import FieldViolation, InvalidAdapter

REGEX_SECONDS = 2.0  # for all matches of a config together; a tenant's patterns may explode
MOST_REGEX_ELEMENTS = 1_000_000  # of all patterns of a config, with counted repeats written out

# What the regex package reads and re, which PEFT uses, does not (recursion takes all memory within
# the time limit), or reads as something else (fuzzy counts, POSIX classes), and free spacing.
_FOREIGN = "|".join(
    (
        r"\{(?![0-9]{0,6},?[0-9]{0,6}\})",
        r"\[:",
        r"\(\*",
        r"(?!\A\(\?[aimsu]+\))\(\?(?!:|=|!|<=|<!|>|#|P<|P=|\(|[aimsu-]+:)",
        r"\\(?![AbBdDsSwWZafnrtvxuUN])[A-Za-z]",
    )
)
_COUNT = r"\{(?P<least>[0-9]*),?(?P<most>[0-9]*)\}"
_SYNTAX = re.compile(rf"(?P<foreign>{_FOREIGN})|\\.|{_COUNT}", re.DOTALL)


class PathMatcher:
    """A config's patterns, with one budget of time and size. Raises InvalidAdapter."""

    def __init__(self) -> None:
        self._compiled: dict[str, regex.Pattern[str]] = {}
        self._seconds_left = REGEX_SECONDS
        self._elements_left = MOST_REGEX_ELEMENTS

    def full(self, name: str, pattern: str, text: str) -> bool:
        return self._match(name, pattern, text, whole=True) is not None

    def start(self, name: str, pattern: str, text: str) -> "regex.Match[str] | None":
        return self._match(name, pattern, text, whole=False)

    def _match(
        self, name: str, pattern: str, text: str, *, whole: bool
    ) -> "regex.Match[str] | None":
        try:
            if pattern not in self._compiled:
                self._compiled[pattern] = self._compile(name, pattern)
            compiled = self._compiled[pattern]
            match = compiled.fullmatch if whole else compiled.match
            started = time.monotonic()
            try:
                left = max(self._seconds_left, 1e-6)
                return match(text, timeout=left, concurrent=True)
            finally:
                self._seconds_left -= time.monotonic() - started
        except regex.error as error:
            problem = f"{pattern!r} is not a regular expression: {error}"
        except RecursionError:
            problem = f"{pattern!r} is nested too deeply"
        except TimeoutError:
            problem = f"{pattern!r} takes too long to match"
        raise InvalidAdapter([FieldViolation(name, problem)])

    def _compile(self, name: str, pattern: str) -> "regex.Pattern[str]":
        """Compiling writes counted repeats out, however they are nested, before any time limit."""
        repeats = 1
        for found in _SYNTAX.finditer(pattern):
            if found["foreign"]:
                problem = f"{pattern!r} has {found[0]!r}, which is not supported in patterns"
                raise InvalidAdapter([FieldViolation(name, problem)])
            repeats *= max(1, int(found["least"] or 0), int(found["most"] or 0))
        self._elements_left -= repeats * len(pattern)
        if self._elements_left < 0:
            raise InvalidAdapter([FieldViolation(name, f"{pattern!r} repeats too much")])
        return regex.compile(pattern)
