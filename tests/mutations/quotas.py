"""Of keys and quotas."""

from tests.mutations.mutation import Mutation

_QUOTAS = "tests/contract/test_quotas.py::"
_RESERVATIONS = "tests/contract/test_reservations.py::"
_HALF_OPEN = "tests/unit/gateway/test_half_open.py::"
_TENANTS = "tests/contract/test_tenants.py::"
_SHARES = "tests/contract/test_shares.py::"

QUOTAS = {
    "a request is let in whatever the limits say": Mutation(
        "gateway/repositories/quotas.py",
        "refused = longest(refusals)",
        "refused = None",
        f"{_QUOTAS}test_many_callers_of_two_gateways_never_overshoot[sqlite-tokens_in_total-137]",
    ),
    "gateways decide side by side": Mutation(
        "gateway/repositories/quotas.py",
        "        .with_for_update()\n",
        "",
        f"{_QUOTAS}test_many_callers_of_two_gateways_never_overshoot"
        "[postgresql-concurrent_requests-11]",
    ),
    "a reservation is settled twice": Mutation(
        "gateway/repositories/quotas.py",
        "deleted = delete(_RESERVATIONS).where(which).returning(*_RESERVATIONS.c)",
        "deleted = select(*_RESERVATIONS.c).where(which)",
        "tests/contract/test_lost_gateways.py::"
        "test_what_the_dead_had_reserved_counts_whole_and_once[sqlite]",
    ),
    "what was not used is not given back": Mutation(
        "gateway/quotas.py",
        "Settlement(party.reservation, party.spent())",
        "Settlement(party.reservation, party.reservation.ask)",
        f"{_QUOTAS}test_what_is_not_used_is_given_back[sqlite]",
    ),
    "what the system failed is charged": Mutation(
        "gateway/quotas.py",
        "party.failed = True",
        "party.failed = False",
        f"{_QUOTAS}test_how_a_request_ends_says_what_counts[sqlite-error0-0-counted0]",
    ),
    "choices are let in one by one": Mutation(
        "gateway/quotas.py",
        "completion.party or completion.job.request_id",
        "completion.job.request_id",
        f"{_QUOTAS}test_choices_are_let_in_together_or_not_at_all[sqlite]",
    ),
    "who leaves too early keeps a place": Mutation(
        "gateway/quotas.py",
        "            party.decided.add_done_callback(settle)\n",
        "            pass\n",
        f"{_QUOTAS}test_a_caller_that_leaves_before_it_is_let_in_holds_nothing[sqlite]",
    ),
    "who leaves too early is charged": Mutation(
        "gateway/quotas.py",
        "        party.inside += 1\n",
        "        party.inside += 1\n        party.let_in.append(course)\n",
        f"{_QUOTAS}test_a_caller_that_leaves_before_it_is_let_in_has_used_nothing[sqlite]",
    ),
    "a lost answer keeps what it reserved": Mutation(
        "gateway/reservations.py",
        "            self.settle(Settlement(reservation, Amount()))\n",
        "            pass\n",
        f"{_RESERVATIONS}test_what_may_have_been_committed_is_given_back[sqlite]",
    ),
    "limits that were set here are not believed": Mutation(
        "gateway/reservations.py",
        "self._unlimited.pop(tenant, None)",
        "pass",
        f"{_QUOTAS}test_a_gateway_that_set_limits_does_not_believe_that_there_are_none[sqlite]",
    ),
    "a minute has 59 seconds": Mutation(
        "policies/quotas.py",
        "if now - second.at <= MINUTE:",
        "if now - second.at < MINUTE:",
        f"{_QUOTAS}test_a_minute_is_over_when_it_is_over[sqlite]",
    ),
    "what runs does not count against the minute": Mutation(
        "policies/quotas.py",
        "used = use.running.tokens + sum(count for _, count in ended)",
        "used = sum(count for _, count in ended)",
        "tests/property/test_quotas.py::test_no_sixty_seconds_see_more_tokens_than_the_limit",
    ),
    "a client comes back too early": Mutation(
        "policies/quotas.py",
        "            return at + MINUTE + 1 - now",
        "            return at + MINUTE - now",
        "tests/property/test_quotas.py::test_when_to_come_back_is_the_first_second_with_room",
    ),
    "a clock that goes back frees a minute": Mutation(
        "policies/quotas.py",
        "if now - second.at <= MINUTE:",
        "if 0 <= now - second.at <= MINUTE:",
        "tests/property/test_quotas.py::test_a_clock_that_goes_back_frees_nothing",
    ),
    "one more is taken on than there is room for": Mutation(
        "gateway/intake.py",
        "if self._taken >= self._most:",
        "if self._taken > self._most:",
        "tests/unit/gateway/test_intake.py::test_what_is_beyond_it_is_told_when_to_come_back",
    ),
    "who takes nothing keeps its place": Mutation(
        "gateway/intake.py",
        "        task.cancel()\n",
        "",
        f"{_HALF_OPEN}test_who_reads_nothing_over_grpc_is_given_up",
    ),
    "who reads nothing stays connected": Mutation(
        "gateway/http_connections.py",
        "round(deaf_seconds * 1000)",
        "0",
        f"{_HALF_OPEN}test_who_reads_nothing_over_http_is_cut_off",
    ),
    "half a body keeps its place": Mutation(
        "gateway/http_server.py",
        "asyncio.timeout(seconds)",
        "asyncio.timeout(None)",
        f"{_HALF_OPEN}test_a_body_that_stops_frees_its_place",
    ),
    "half a head keeps its connection": Mutation(
        "gateway/http_connections.py",
        "        elif not has_head and self._late is None:\n",
        "        else:\n            self._late.cancel()\n        if False:\n",
        f"{_HALF_OPEN}test_a_head_that_does_not_come_ends_the_connection[POST / HT]",
    ),
    "calls that the loop has yet to take are dropped": Mutation(
        "runtime/server.py",
        '    ("grpc.server.max_pending_requests", MOST_PENDING),\n',
        "",
        "tests/unit/runtime/test_server.py::"
        "test_calls_that_come_while_the_loop_is_busy_are_all_answered",
    ),
    "an expired key works": Mutation(
        "gateway/keys.py",
        "if key.expires is not None and key.expires <= now:",
        "if False:",
        f"{_TENANTS}test_a_key_works_until_it_expires[sqlite]",
    ),
    "a replaced secret works for good": Mutation(
        "gateway/keys.py",
        "if replaced is not None and previous and replaced.until <= now:",
        "if False:",
        f"{_TENANTS}test_a_replaced_secret_works_for_the_overlap[sqlite]",
    ),
    "a key has no share in what its tenant is to get": Mutation(
        "gateway/tenants.py",
        "return Caller(key.tenant, key.id, key.scopes, share)",
        "return Caller(key.tenant, key.id, key.scopes)",
        f"{_SHARES}test_a_request_brings_its_tenants_share_as_it_is_then[sqlite]",
    ),
    "of two rotations one is lost": Mutation(
        "gateway/repository.py",
        "same = (KeyRow.id == before.id, KeyRow.secret_hmac == before.secret_hmac)",
        "same = (KeyRow.id == before.id,)",
        f"{_TENANTS}test_of_two_rotations_at_once_one_is_done[sqlite]",
    ),
    "scopes are not looked at": Mutation(
        "runtime/auth.py",
        "if scope in KEY_SCOPES and self.scopes is not None and scope not in self.scopes:",
        "if False:",
        f"{_TENANTS}test_a_key_may_do_what_its_scopes_say[sqlite]",
    ),
    "who was revoked is let in for good": Mutation(
        "gateway/bearers.py",
        "return known if self._clock() < until else None",
        "return known",
        "tests/contract/test_tenants.py::"
        "test_what_changes_at_another_gateway_holds_here_within_a_second[sqlite]",
    ),
    "who was revoked here is let in for a moment": Mutation(
        "gateway/bearers.py",
        "        self._known.clear()\n",
        "",
        "tests/contract/test_tenants.py::"
        "test_what_changes_at_another_gateway_holds_here_within_a_second[sqlite]",
    ),
}
