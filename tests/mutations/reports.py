"""Of what workers say of themselves, and when they may leave."""

from tests.mutations.mutation import Mutation

_CONTROL = "tests/unit/scheduler/test_control.py::"
_DRAINED = "tests/contract/test_drained.py::"
_PRESENT = "tests/unit/gpu_worker/test_attendance.py::"
_REPORTS = "tests/unit/scheduler/test_reports.py::"
_SERVICE = "tests/contract/test_fleet_service.py::"
_SPREAD = "tests/unit/scheduler/test_spread.py::"
_TRANSFERS = "tests/unit/policies/test_transfers.py::"

REPORTS: dict[str, Mutation] = {
    "who has seats left is asked for its sequences": Mutation(
        "scheduler/control.py",
        "asked = frozenset(silent | sources(summed))",
        "asked = frozenset(worker.identity.id for worker in able)",
        _CONTROL + "test_who_has_seats_left_is_not_asked_and_is_planned_by_its_sums",
    ),
    "who was asked and is silent is planned by its sums": Mutation(
        "scheduler/control.py",
        "or (worker.identity.id not in asked and _is_known(worker))",
        "or _is_known(worker)",
        _CONTROL + "test_who_was_asked_and_did_not_tell_takes_no_part",
    ),
    "what is not there any more is still told of": Mutation(
        "core/reports.py",
        "            there.pop(digest, None)\n",
        "            pass\n",
        _REPORTS + "test_changes_come_to_what_the_worker_has",
    ),
    "what is on the device is as it was when all was told": Mutation(
        "scheduler/fleet.py",
        "resident = tuple(e.digest for e in adapters if e.place is AdapterPlace.DEVICE)",
        "resident = before.resident",
        _REPORTS + "test_changes_come_to_what_the_worker_has",
    ),
    "changes of what was not said are taken for all": Mutation(
        "scheduler/fleet.py",
        "    elif before is None or known is None:",
        "    elif before is None:\n        adapters = changes.came\n    elif known is None:",
        _REPORTS + "test_changes_of_what_was_not_said_are_refused",
    ),
    "a new leader is told changes of what another was told": Mutation(
        "gpu_worker/attendance.py",
        "self._told, self._tells_changes = None, False",
        "self._tells_changes = False",
        _PRESENT + "test_whoever_takes_changes_is_told_what_is_other_once_it_was_told_all",
    ),
    "a scheduler of the release before is told changes": Mutation(
        "gpu_worker/attendance.py",
        "self._tells_changes = orders.takes_changes",
        "self._tells_changes = True",
        _PRESENT + "test_whoever_takes_changes_is_told_what_is_other_once_it_was_told_all",
    ),
    "what a worker has no room for is brought every time": Mutation(
        "scheduler/spread.py",
        "if w in there or (adapter, w) not in self._ordered]",
        "]",
        _SPREAD + "test_what_a_worker_has_no_room_for_is_not_brought_again_and_again",
    ),
    "pins without room are not told of": Mutation(
        "runtime/wire_reports.py",
        "        without_room=frozenset(Digest(digest) for digest in message.pins_without_room),\n",
        "",
        _SERVICE + "test_what_is_pinned_is_said_to_its_workers_and_listed",
    ),
    "a drained worker ends before that is written down": Mutation(
        "scheduler/servicer.py",
        "            await self._written(reign, seat)\n",
        "",
        _DRAINED + "test_a_drain_is_written_down_though_the_leader_dies_before",
    ),
    "a drained worker leaves though no scheduler knows it": Mutation(
        "gpu_worker/clients.py",
        "if attendance.leaves and (is_known or not attendance.is_sent_away.is_set()):",
        "if attendance.leaves:",
        _DRAINED + "test_a_drain_is_written_down_though_the_leader_dies_before",
    ),
    "who stops by itself waits for a scheduler": Mutation(
        "gpu_worker/clients.py",
        "(is_known or not attendance.is_sent_away.is_set()):",
        "is_known:",
        _DRAINED + "test_who_stops_by_itself_waits_for_no_scheduler",
    ),
    "what a worker has measured is not weighed": Mutation(
        "policies/placement/cost.py",
        "return wish.fetch_ms if times is None else times.of(wish.adapter_bytes)",
        "return wish.fetch_ms",
        _TRANSFERS + "test_a_load_takes_what_its_worker_has_measured_for_its_size",
    ),
    "all adapters are as large": Mutation(
        "gateway/lines.py",
        "        adapter_bytes=job.adapter_bytes,\n",
        "",
        "tests/unit/gateway/test_fair_queue.py::"
        "test_an_adapter_is_fetched_where_one_of_its_size_comes_soonest",
    ),
    "sizes that are alike are believed": Mutation(
        "policies/placement/transfers.py",
        "if variance > (SPREAD * size) ** 2:",
        "if variance > -1:",
        _TRANSFERS + "test_those_of_one_size_take_what_is_believed_and_the_rest_is_bytes",
    ),
    "what came long ago counts as much": Mutation(
        "policies/placement/transfers.py",
        "kept = 1 - LEARNING_RATE",
        "kept = 1",
        _TRANSFERS + "test_what_came_last_counts_most",
    ),
    "gateways do not hear what loads take": Mutation(
        "gateway/worker_line.py",
        'if room.HasField("load_times")',
        "if False",
        "tests/contract/test_worker_room.py::"
        "test_a_gateway_weighs_what_loads_take_as_the_worker_has_measured",
    ),
    "moves are planned with what was believed of loads": Mutation(
        "scheduler/loads.py",
        "return unknown if times is None else times.of()",
        "return unknown",
        "tests/unit/scheduler/test_loads.py::test_an_adapter_costs_what_the_worker_has_measured",
    ),
    "a worker does not measure its fetches": Mutation(
        "gpu_worker/fetches.py",
        "            self.transfers.took(weights.size_bytes, 1000 * (time.monotonic() - began))\n",
        "",
        "tests/unit/gpu_worker/test_attendance.py::"
        "test_what_is_pinned_comes_to_the_device_and_stays",
    ),
}
