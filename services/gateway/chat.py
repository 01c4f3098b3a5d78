"""Conversations to prompts, through the model's chat template in a process of its own."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from typing import Any

from services.core.errors import InvalidRequest
from services.gateway.conversation import Conversation

_LONGEST_LINE = 64 * 1024 * 1024


class ChatTemplates:
    """Renders templates; one that runs longer than `seconds` is ended and refused."""

    def __init__(self, *, seconds: float = 2.0) -> None:
        self._seconds = seconds
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def render(
        self,
        template: str,
        conversation: Conversation,
        special_tokens: Mapping[str, str],
    ) -> str:
        """Raises InvalidRequest if the template refuses the messages, fails or does not end."""
        asked: dict[str, Any] = {
            "template": template,
            "variables": {**special_tokens, **conversation.variables()},
        }
        if conversation.uses_tools:
            asked["plain_messages"] = conversation.plain_messages()
        line = json.dumps(asked).encode() + b"\n"
        async with self._turn:
            answer = await self._ask(line)
        if "error" in answer:
            raise InvalidRequest.of("messages", f"the chat template says: {answer['error']}")
        return answer["text"]

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _ask(self, line: bytes) -> dict[str, str]:
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._seconds):
                process.stdin.write(line)
                await process.stdin.drain()
                answer = await process.stdout.readline()
        except BaseException as error:  # whatever stopped us, its answer must not meet the next
            await self.close()
            if isinstance(error, TimeoutError):
                return {"error": f"it ran for more than {self._seconds:g} seconds"}
            if isinstance(error, OSError | ValueError):
                return {"error": "it broke"}
            raise
        if not answer.endswith(b"\n"):
            await self.close()
            return {"error": "it used too much memory"}
        decoded: dict[str, str] = json.loads(answer)
        return decoded

    async def _started(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.gateway.template_process",
                stdin=PIPE,
                stdout=PIPE,
                limit=_LONGEST_LINE,
            )
            await self._warm(self._process)
        return self._process

    async def _warm(self, process: Process) -> None:
        """Wait for the imports, so that they do not count against a template."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"template": "", "variables": {}}\n')
        await process.stdout.readline()
