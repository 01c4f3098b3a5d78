"""Of homes: how many an adapter has, and who is told."""

from tests.mutations.mutation import Mutation

_DEMAND = "tests/contract/test_demand.py::"
_QUEUE = "tests/unit/gateway/test_fair_queue.py::"
_SERVICE = "tests/contract/test_fleet_service.py::"
_SPREAD = "tests/unit/scheduler/test_spread.py::"

SPREAD: dict[str, Mutation] = {
    "arrivals are told again and again": Mutation(
        "gateway/lane.py",
        "arrived, self.arrived = self.arrived, Counter()",
        "arrived = self.arrived",
        _DEMAND + "test_arrivals_are_told_once",
    ),
    "what keeps workers busy changes nothing": Mutation(
        "scheduler/spread.py",
        "                known.replicas.arrived(adapter, now, busy_ms, times)\n",
        "",
        _SPREAD + "test_an_adapter_that_keeps_workers_busy_has_more_homes_until_it_is_cold",
    ),
    "what was hot once is hot for ever": Mutation(
        "scheduler/spread.py",
        "base.replicas.settle(self._clock.now())",
        "pass",
        _SPREAD + "test_an_adapter_that_keeps_workers_busy_has_more_homes_until_it_is_cold",
    ),
    "a request is as much work however long it runs": Mutation(
        "scheduler/spread.py",
        "seconds = sum(worker.report.running for worker in workers) / per_second",
        "seconds = 1.0",
        _SPREAD + "test_requests_are_as_much_work_as_they_run_long",
    ),
    "the first requests of a reign are taken for all": Mutation(
        "scheduler/spread.py",
        "self.seconds = self.seconds * kept + now - self.at",
        "self.seconds = RATE_SECONDS",
        _SPREAD + "test_what_came_before_anything_was_seen_is_not_taken_for_work",
    ),
    "a pin is no floor": Mutation(
        "scheduler/spread.py",
        "return max(1, pin.workers if pin is not None else 0, *found)",
        "return max(1, *found)",
        _SPREAD + "test_a_pin_is_a_floor",
    ),
    "a base model without workers stops the scheduler": Mutation(
        "scheduler/spread.py",
        "if not seats or per_second <= 0:",
        "if per_second <= 0:",
        _SPREAD + "test_a_base_model_without_workers_is_no_error",
    ),
    "homes are told what they have": Mutation(
        "scheduler/spread.py",
        "holders.setdefault(load.digest, set()).add(worker.identity.id)",
        "pass",
        _SPREAD + "test_what_its_home_has_though_nobody_ordered_it_is_not_brought",
    ),
    "who drains is at home": Mutation(
        "scheduler/spread.py",
        "worker.identity.base_fingerprint == base and worker.state is WorkerState.SERVING",
        "worker.identity.base_fingerprint == base",
        _SPREAD + "test_nothing_is_brought_to_who_drains",
    ),
    "gateways are told of homes once": Mutation(
        "scheduler/servicer.py",
        "if homes != told_homes:",
        "if not told:",
        _SERVICE + "test_a_gateway_hears_how_many_homes_an_adapter_has_now",
    ),
    "who serves nobody is somebody's home": Mutation(
        "gateway/workers.py",
        "            self._serving_of(identity.base_fingerprint).drop(worker)\n",
        "            pass\n",
        _SERVICE + "test_a_gateway_hears_how_many_homes_an_adapter_has_now",
    ),
    "a gateway places where nobody is at home": Mutation(
        "policies/placement/index.py",
        "return replace(wish, homes=frozenset().union(*found))",
        "return wish",
        _QUEUE + "test_an_adapter_that_nobody_has_goes_to_its_home",
    ),
    "a request waits for its home": Mutation(
        "gateway/fair_queue.py",
        "            line = lines.place(ticket.job, ticket.urgency(lines.pool_tokens))\n",
        "            line = lines.nearest(ticket.job)\n"
        "            line = line if line and line.fits(ticket.job) else None\n",
        _QUEUE + "test_a_home_without_room_is_not_waited_for",
    ),
}
