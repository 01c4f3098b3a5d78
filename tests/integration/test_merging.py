"""A worker that always has an adapter in its weights answers as one that never has."""

import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from tests.integration.conftest import BASE, Running

TOKENS = 48  # and an adapter is folded in a third of the steps
BY = {"style@1": "pirate", "style@2": "json", BASE: BASE}  # there, and in the other suite


def text(running: Running, model: str, question: str) -> str:
    request = running.ask(model, question, max_tokens=TOKENS, ignore_eos=True)
    return "".join(piece.text for piece in running.generate(request))


def switches(running: Running) -> float:
    address = running.suite.settings["GPU_WORKER_METRICS_ADDRESS"]
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        found = re.search(r"^\S+_merge_switches_total (\S+)$", answer.read().decode(), re.M)
    assert found is not None
    return float(found[1])


def test_its_answers_are_the_same(running: Running, breakable: Running) -> None:
    asked = [(model, "What is rain?") for model in BY] + [("style@1", "Who are you?")]
    before = switches(breakable)
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda each: text(breakable, *each), asked))
        plain = list(pool.map(lambda each: text(running, BY[each[0]], each[1]), asked))
    assert found == plain
    assert switches(breakable) > before
