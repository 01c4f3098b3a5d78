"""Of workers and stores that are lost, hang or are slow."""

from tests.mutations.mutation import Mutation

FAILURES = {
    "a worker that fell silent is waited for": Mutation(
        "gateway/worker_line.py",
        "            self._call.cancel()\n",
        "            pass\n",
        "tests/contract/test_silence.py::"
        "test_what_is_on_it_is_lost_and_it_is_called_anew[by-nobody]",
    ),
    "a slow store is believed to mean what has changed": Mutation(
        "gateway/resolutions.py",
        "        if self._trusted(key) is None:  # a change came meanwhile\n"
        "            return await self._ask(key, request)\n",
        "",
        "tests/unit/gateway/test_resolutions.py::"
        "test_a_slow_store_is_waited_for_once_the_answer_has_changed",
    ),
    "a worker in doubt is given requests": Mutation(
        "policies/silence.py",
        "silent > DOUBTFUL_BEATS * beat",
        "False",
        "tests/contract/test_silence.py::test_it_is_given_nothing_new_while_that_is_in_doubt",
    ),
    "a worker without news says nothing": Mutation(
        "gpu_worker/session.py",
        "                return News()\n",
        "                continue\n",
        "tests/contract/test_silence.py::test_one_that_has_nothing_to_say_says_so",
    ),
    "a stream that goes on elsewhere begins anew": Mutation(
        "gpu_worker/engine/sequence.py",
        "[*self.request.prompt, *self.request.delivered]",
        "list(self.request.prompt)",
        "tests/contract/test_going_on.py::test_it_goes_on_as_it_would_have_there[greedy]",
    ),
    "a constraint begins anew elsewhere": Mutation(
        "gpu_worker/servicer.py",
        "            filtered.advance(token)\n",
        "            pass\n",
        "tests/contract/test_going_on.py::test_it_goes_on_as_it_would_have_there[constraint]",
    ),
    "what was told is told again elsewhere": Mutation(
        "gateway/lane.py",
        "        self.delivered += tokens\n",
        "",
        "tests/contract/test_going_on.py::test_a_client_does_not_notice_that_its_worker_is_lost",
    ),
    "a worker of the release before is asked to go on": Mutation(
        "gateway/lane.py",
        "not in self.failed and line.serves(self.job)",
        "not in self.failed",
        "tests/contract/test_going_on.py::"
        "test_a_worker_of_the_release_before_is_not_asked_to_go_on",
    ),
}
