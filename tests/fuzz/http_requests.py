"""Makes sensible most of what a fuzzer draws, so that not everything fails at the first field."""

import random
from typing import Any

MOST_TOKENS = 4
_NEEDED = ("model", "messages", "prompt", "inputs", "max_tokens", "max_completion_tokens", "n")


def sensible(body: Any, draw: random.Random, *, model: str) -> Any:
    """Of every optional field one in four stays as it was drawn. Never many tokens."""
    if not isinstance(body, dict):
        return body
    body = {name: value for name, value in body.items() if name in _NEEDED or draw.random() < 0.25}
    if "inputs" in body:
        return _inference(body, draw)
    if "model" in body:
        body["model"] = model
    body |= {"max_tokens": MOST_TOKENS, "n": draw.choice((1, 1, 2))}
    body.pop("max_completion_tokens", None)
    if body.get("stream_options"):
        body["stream"] = True
    if isinstance(body.get("messages"), list):
        body["messages"] = [_message(message, draw) for message in body["messages"][:4]]
    if isinstance(body.get("prompt"), list):
        body["prompt"] = [_tokens(prompt, draw) for prompt in body["prompt"][:4]]
    if "prompt" in body and draw.random() < 0.95:
        body["prompt"] = body["prompt"] or "hello"
    if draw.random() < 0.8:
        body.pop("first_token_within_ms", None)
    if isinstance(body.get("tools"), list):
        body["tools"] = [_tool(tool, index, draw) for index, tool in enumerate(body["tools"])]
    return body


def _inference(body: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    parameters = body.get("parameters") or {}
    body["parameters"] = (parameters if draw.random() < 0.2 else {}) | {"max_tokens": MOST_TOKENS}
    for tensor in body["inputs"] if isinstance(body["inputs"], list) else []:
        if isinstance(tensor, dict) and draw.random() < 0.9:
            texts = [str(element) or "x" for element in tensor.get("data") or ["hello"]][:4]
            tensor |= {"name": "text_input", "datatype": "BYTES", "data": texts}
            tensor["shape"] = [len(texts)]
    return body


def _message(message: Any, draw: random.Random) -> Any:
    if not isinstance(message, dict) or draw.random() < 0.05:
        return message
    kept = {name: value for name, value in message.items() if draw.random() < 0.5}
    text = message.get("content") or "hello"
    if isinstance(text, list):
        text = [part | {"type": "text", "text": part.get("text") or "so"} for part in text]
    role = "assistant" if kept.get("tool_calls") else draw.choice(("system", "user", "tool"))
    for call in kept.get("tool_calls") or ():
        if isinstance(call, dict) and isinstance(call.get("function"), dict):
            call["function"]["arguments"] = draw.choice(('{"a": [1]}', "{}", "{"))
    kept.pop("function_call", None)
    return kept | {"role": role, "content": text}


def _tokens(prompt: Any, draw: random.Random) -> Any:
    if isinstance(prompt, list):
        return [_tokens(token, draw) for token in prompt] or [1]
    return draw.randrange(40_000) if isinstance(prompt, int | float) else prompt or "hello"


def _tool(tool: Any, index: int, draw: random.Random) -> Any:
    if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
        tool["function"]["name"] = f"f{index}"
        if draw.random() < 0.8:
            tool["function"]["parameters"] = draw.choice((None, {"type": "object"}, {"enum": [{}]}))
    return tool
