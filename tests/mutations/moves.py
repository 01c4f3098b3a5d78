"""Of sequences that move from worker to worker."""

from tests.mutations.mutation import Mutation

_MOVES = "tests/contract/test_moves.py::"
_KEEPING = "tests/unit/gpu_worker/test_keeping.py::"
_ATTENDANCE = "tests/unit/gpu_worker/test_attendance.py::"

MOVES = {
    "a sequence that moves begins anew": Mutation(
        "gateway/lane.py",
        "        return replace(job, delivered=tuple(self.delivered), moved_from=source)",
        "        return replace(job, moved_from=source)",
        f"{_MOVES}test_its_tokens_are_those_of_an_undisturbed_run[greedy]",
    ),
    "a sequence leaves and its keys and values stay behind": Mutation(
        "gpu_worker/servicer.py",
        "            if start.moved_from and asked.delivered:",
        "            if start.moved_from and not asked.delivered:",
        f"{_MOVES}test_its_keys_and_values_go_with_it",
    ),
    "pages that did not come are believed": Mutation(
        "gpu_worker/engine/carrying.py",
        "        came, unused = expected.pages[:count], expected.pages[count:]",
        "        came, unused = expected.pages, ()",
        f"{_MOVES}test_a_source_that_dies_with_them_costs_nothing_but_time",
    ),
    "pages that another worker read stay held": Mutation(
        "gpu_worker/handover.py",
        "        await self._worker.change(lambda _: self._carrying.release(held))",
        "        await self._worker.change(lambda _: None)",
        f"{_MOVES}test_its_keys_and_values_go_with_it",
    ),
    "pages that another worker read are told of as held": Mutation(
        "gpu_worker/handover.py",
        "        await self._worker.change(lambda _: self._carrying.release(held))",
        "        await self._worker.between_steps(lambda _: self._carrying.release(held))",
        f"{_MOVES}test_pages_that_were_read_are_told_of_as_free_though_nothing_runs",
    ),
    "what was known of a prompt is told by who knows more": Mutation(
        "gateway/lane.py",
        "        return replace(piece, cached_tokens=self.cached_tokens)",
        "        return piece",
        f"{_MOVES}test_its_keys_and_values_go_with_it",
    ),
    "what cannot follow is moved": Mutation(
        "gpu_worker/worker.py",
        "        if request not in self._movable:",
        "        if request not in self._owners:",
        f"{_MOVES}test_what_has_ended_or_cannot_follow_stays_where_it_is",
    ),
    "a target that is gone is waited for": Mutation(
        "gateway/fair_queue.py",
        "        ticket.turn = asyncio.get_running_loop().create_future()\n        line, job",
        "        ticket.turn = asyncio.get_running_loop().create_future()\n"
        "        return\n        line, job",
        f"{_MOVES}test_it_goes_elsewhere_if_its_target_is_gone",
    ),
    "a scheduler that no longer leads is obeyed": Mutation(
        "gpu_worker/attendance.py",
        "        if orders.term < self._term:",
        "        if orders.term < 0:",
        f"{_ATTENDANCE}test_an_earlier_term_is_not_obeyed",
    ),
    "a move is made as often as it is ordered": Mutation(
        "gpu_worker/attendance.py",
        "            if move.id not in self._obeyed:",
        "            if move.id:",
        f"{_ATTENDANCE}test_sequences_are_told_when_asked_for_and_moves_are_made_once",
    ),
    "what is pinned can leave": Mutation(
        "gpu_worker/engine/keeping.py",
        "                residency.keep(adapter)",
        "                pass",
        f"{_ATTENDANCE}test_what_is_pinned_comes_to_the_device_and_stays",
    ),
    "an engine that hangs is waited for": Mutation(
        "gpu_worker/worker.py",
        "        self._turn_began = time.monotonic()\n",
        "",
        f"{_ATTENDANCE}test_an_engine_that_hangs_is_noticed_and_told_of_as_it_was",
    ),
    "what is pinned and has no room is fetched again and again": Mutation(
        "gpu_worker/engine/keeping.py",
        "if not there.holds(a) and self.has_room(a, promised)}",
        "if not there.holds(a)}",
        f"{_KEEPING}test_what_has_no_room_is_told_and_not_fetched_again",
    ),
    "what is too large is brought for nobody": Mutation(
        "gpu_worker/engine/engine.py",
        "if adapter not in self._batcher.wanted() and adapter in self._without_room():",
        "if False:",
        f"{_KEEPING}test_what_is_larger_than_half_of_the_pool_is_told_too",
    ),
    "what had no room never has": Mutation(
        "gpu_worker/engine/keeping.py",
        "            residency.let_go(adapter)\n",
        "            pass\n",
        f"{_KEEPING}test_what_had_no_room_comes_when_another_is_let_go",
    ),
}
