"""Of what serves: worker, gateway, engine."""

from tests.mutations.mutation import Mutation

SERVING = {
    "an adapter is mixed up": Mutation(
        "gpu_worker/model/runner.py",
        "return self._banks[adapter]",
        "return next(iter(self._banks.values()))",
        "tests/unit/gpu_worker/test_engine.py::"
        "test_every_adapter_answers_for_itself_whatever_order_they_come_in",
    ),
    "a scaling is forgotten": Mutation(
        "gpu_worker/model/layout.py",
        "np.float32(module.scaling)",
        "np.float32(1)",
        "tests/contract/test_parity_families.py::test_a_mixed_batch_agrees_with_the_reference",
    ),
    "bytes that are not the digest's are loaded": Mutation(
        "gpu_worker/model/unpacking.py",
        "if found.hexdigest() != digest:",
        "if False:",
        "tests/unit/gpu_worker/test_fetching.py::test_a_file_that_cannot_be_read_fails_alone",
    ),
    "a window is ignored": Mutation(
        "gpu_worker/kernels/cpu/attention.py",
        "starts=torch.tensor([max(0, end - (window or end)) for end in ends], dtype=torch.int32),",
        "starts=torch.tensor([0 for end in ends], dtype=torch.int32),",
        "tests/contract/test_parity_families.py::"
        "test_a_mixed_batch_agrees_with_the_reference[mistral-whole]",
    ),
    "what another left in a page is read": Mutation(
        "gpu_worker/kernels/cpu/attention.py",
        "mask = reference.visible(rows, span.position + span.count, window)",
        "mask = reference.visible(rows, len(table) * page_tokens, window)",
        "tests/contract/test_parity_families.py::test_a_mixed_batch_agrees_with_the_reference",
    ),
    "a window is ignored on a GPU": Mutation(
        "gpu_worker/kernels/cuda/attention.py",
        "low = tl.maximum(tl.load(starts + sequence), split * SPLIT)",
        "low = split * SPLIT",
        "tests/gpu/test_kernels.py::test_attention[window-4-4-20-fp32]",
    ),
    "what fills a step up writes where others read": Mutation(
        "gpu_worker/model/graphs.py",
        "more = [Span(row, 1, 0, (page,))",
        "more = [Span(row, 1, 0, (0,))",
        "tests/gpu/test_graphs.py::test_a_replayed_step_is_as_one_that_is_not",
    ),
    "a replayed step adds what the one before did": Mutation(
        "gpu_worker/kernels/cuda/fixed.py",
        "        self._here.chunks.zero_()\n",
        "",
        "tests/gpu/test_graphs.py::test_a_replayed_step_is_as_one_that_is_not",
    ),
    "a graph is too small for an adapter": Mutation(
        "gpu_worker/model/graphs.py",
        "if not at.adapts}",
        "}",
        "tests/gpu/test_graphs.py::test_for_larger_adapters_steps_are_recorded_anew",
    ),
    "a graph knows only the step it was recorded with": Mutation(
        "gpu_worker/kernels/cuda/fixed.py",
        "        self._block.copy_(host, non_blocking=True)\n",
        "        self._block.add_(host * (self._block.count_nonzero() == 0))\n",
        "tests/gpu/test_graphs.py::test_a_replayed_step_is_as_one_that_is_not",
    ),
    "an adapter that is alone adds one module to all columns' first": Mutation(
        "gpu_worker/kernels/cuda/deltas.py",
        "y[:, part.column_start : part.column_end].addmm_(",
        "y[:, : part.column_end - part.column_start].addmm_(",
        "tests/gpu/test_kernels.py::test_one_adapter_of_many_rows_is_added_by_products_of_torch",
    ),
    "one adapter of some rows is all rows'": Mutation(
        "gpu_worker/kernels/cuda/deltas.py",
        "len(segments) == 1 and segments[0].last - segments[0].first == rows",
        "len(segments) == 1",
        "tests/gpu/test_kernels.py::test_one_adapter_of_many_rows_is_added_by_products_of_torch",
    ),
    "a sequence is cut otherwise than its kernel was told": Mutation(
        "gpu_worker/kernels/cuda/layouts.py",
        "splits=triton.cdiv(max(ends), config.split)",
        "splits=triton.cdiv(max(ends), 256)",
        "tests/gpu/test_config.py::test_attention_sees_the_same_however_it_is_launched",
    ),
    "a constraint is not followed": Mutation(
        "gpu_worker/engine/engine.py",
        "request.filter is not None and request.filter.advance(token)",
        "request.filter is None and False",
        "tests/unit/gpu_worker/test_grammar.py::"
        "test_a_sequence_that_gave_way_goes_on_with_its_constraint",
    ),
    "what was promised to a worker is forgotten": Mutation(
        "gateway/worker_room.py",
        "return len(self._promised) + len(self._sent)",
        "return 0",
        "tests/contract/test_worker_room.py::"
        "test_what_was_promised_counts_until_the_worker_counts_it",
    ),
    "a start that failed keeps its room": Mutation(
        "gpu_worker/session.py",
        "self._failed += 1",
        "self._failed += 0",
        "tests/contract/test_worker_room.py::"
        "test_a_start_that_fails_or_is_withdrawn_gives_its_room_back",
    ),
    "a worker takes all that comes": Mutation(
        "gpu_worker/engine/batcher.py",
        "max(0, self._limits.max_sequences + soon - running - waiting)",
        "max(0, self._limits.max_sequences + 20 - running)",
        "tests/contract/test_worker_room.py::test_no_more_waits_in_a_worker_than_follows_at_once",
    ),
    "who does not fit is overtaken": Mutation(
        "gateway/fair_queue.py",
        "for request in lane.policy.candidates(now, lines.ready):",
        "for request in [one for queue in lane.policy._queues.values() for one in queue.values()]:",
        "tests/unit/gateway/test_fair_queue.py::"
        "test_one_that_does_not_fit_is_not_overtaken_and_starts_as_soon_as_it_does",
    ),
    "the worker that failed is asked again": Mutation(
        "gateway/fair_queue.py",
        "ticket.failed |= {failing}",
        "pass",
        "tests/unit/gateway/test_fair_queue.py::test_one_that_every_worker_has_failed_is_given_up",
    ),
    "a worker that is back is failed still": Mutation(
        "gateway/lane.py",
        "line not in self.failed and",
        "line.view.id not in {each.view.id for each in self.failed} and",
        "tests/unit/gateway/test_fair_queue.py::"
        "test_one_whose_only_worker_died_starts_when_that_is_back_under_its_name",
    ),
    "who has no worker left waits for ever": Mutation(
        "gateway/fair_queue.py",
        "if lines and not any(map(ticket.may_run, lines)):",
        "if False:",
        "tests/unit/gateway/test_fair_queue.py::"
        "test_one_is_given_up_when_all_that_are_left_have_failed_it",
    ),
    "who has gone keeps the worker that was granted": Mutation(
        "gateway/fair_queue.py",
        "ticket.turn.result().withdraw(ticket.job.request_id)",
        "pass",
        "tests/unit/gateway/test_fair_queue.py::test_one_that_goes_away_leaves_nothing[granted]",
    ),
    "the one that came last has to go, whoever has most": Mutation(
        "gateway/lane.py",
        "if ticket.levels == greediest",
        "if True",
        "tests/unit/gateway/test_fair_queue.py::"
        "test_where_too_many_wait_the_newest_of_the_greediest_has_to_go",
    ),
    "a prefix is shared unasked": Mutation(
        "gateway/gateway.py",
        "COMMON_SALT if asked.share_prefix and adapter is None else tenant",
        "COMMON_SALT if adapter is None else tenant",
        "tests/unit/gateway/test_gateway.py::test_prefixes_are_shared_by_those_who_say_so",
    ),
    "a draw depends on the batch": Mutation(
        "gpu_worker/model/sampler.py",
        "[_uniform(draw) for draw in draws]",
        "[_uniform(draw) * (1 - 0.3 * (len(draws) > 1)) for draw in draws]",
        "tests/unit/gpu_worker/test_engine.py::"
        "test_a_draw_depends_on_its_seed_and_not_on_the_company",
    ),
    "a step waits for its draws and for the rest": Mutation(
        "gpu_worker/model/sampler.py",
        "return order.gather(1, chosen).squeeze(1)",
        "return torch.tensor(order.gather(1, chosen).squeeze(1).tolist())",
        "tests/unit/gpu_worker/test_sampler.py::test_what_is_chosen_comes_to_the_host_at_once",
    ),
    "log-probabilities are of another row": Mutation(
        "gpu_worker/model/sampler.py",
        "tokens[rows].unsqueeze(1)",
        "tokens[: len(rows)].unsqueeze(1)",
        "tests/unit/gpu_worker/test_sampler.py::"
        "test_log_probabilities_are_each_rows_own_to_the_last_bit",
    ),
    "pages leak": Mutation(
        "gpu_worker/engine/batcher.py",
        "        self._pool.take_back(sequence)\n",
        "",
        "tests/unit/gpu_worker/test_engine.py::"
        "test_a_cancelled_sequence_frees_its_pages_and_its_adapter_within_a_step",
    ),
    "a pinned adapter leaves": Mutation(
        "gpu_worker/engine/residency.py",
        "for name, r in self._residents.items() if r.pins == 0]",
        "for name, r in self._residents.items()]",
        "tests/unit/gpu_worker/test_pool.py::test_a_pinned_adapter_never_leaves",
    ),
    "a long prompt takes the whole step": Mutation(
        "gpu_worker/engine/batcher.py",
        "key=lambda s: s.pending > 1",
        "key=lambda s: -s.pending",
        "tests/unit/gpu_worker/test_engine.py::test_a_long_prompt_does_not_stall_running_streams",
    ),
    "a prefix is shared across versions": Mutation(
        "gpu_worker/engine/sequence.py",
        "return self.request.cache_salt, self.request.adapter",
        "return self.request.cache_salt, None",
        "tests/unit/gpu_worker/test_prefixes.py::test_versions_and_tenants_never_share",
    ),
    "what gave way starts over": Mutation(
        "gpu_worker/engine/batcher.py",
        "        self._stop(sequence)\n        sequence.preempted",
        "        self._stop(sequence)\n"
        "        del sequence.tokens[len(sequence.request.prompt) :]\n"
        "        sequence.preempted",
        "tests/unit/gpu_worker/test_engine.py::test_a_sequence_that_gives_way_goes_on_where_it_was",
    ),
    "a closed stream goes on": Mutation(
        "gpu_worker/worker.py",
        "        self._inbox.cancelled.append(request)\n",
        "",
        "tests/unit/gpu_worker/test_worker.py::test_a_closed_stream_frees_its_pages_within_one_step",
    ),
    "what was promoted is not fetched": Mutation(
        "gpu_worker/prefetch.py",
        "in (change.digest, change.canary_digest) if digest",
        "in (change.canary_digest,) if digest",
        "tests/integration/test_prefetch.py::"
        "test_what_is_promoted_is_in_host_memory_before_any_request_asks_for_it",
    ),
    "a reference outlives a change": Mutation(
        "gateway/resolutions.py",
        "            del self._known[key]\n",
        "            pass\n",
        "tests/unit/gateway/test_resolutions.py::"
        "test_a_change_that_touches_an_adapter_ends_what_was_known_of_it",
    ),
    "an answer outlives a change that overtook it": Mutation(
        "gateway/resolutions.py",
        "        if told == self._told:\n",
        "        if True:\n",
        "tests/unit/gateway/test_resolutions.py::test_an_answer_that_a_change_overtook_is_not_kept",
    ),
    "a forged header signs for another key": Mutation(
        "gateway/tenants.py",
        "return Caller(key.tenant, key.id, key.scopes, share)",
        'return Caller(key.tenant, KeyId(metadata.get("x-lorikeet-key", key.id)), key.scopes)',
        "tests/contract/test_tenants.py::test_metadata_gives_nobody_another_tenant_or_key[sqlite]",
    ),
    "a forged header speaks for another tenant": Mutation(
        "gateway/tenants.py",
        "return Caller(key.tenant, key.id, key.scopes, share)",
        'return Caller(TenantId(metadata.get("x-lorikeet-tenant", key.tenant)), key.id)',
        "tests/contract/test_tenants.py::test_metadata_gives_nobody_another_tenant_or_key[sqlite]",
    ),
    "histories forget the key": Mutation(
        "runtime/client.py",
        "        metadata += ((KEY_METADATA, key),)\n",
        "        pass\n",
        "tests/unit/runtime/test_auth.py::test_a_caller_arrives_as_it_was_sent",
    ),
    "a revoked key works": Mutation(
        "gateway/keys.py",
        "if key.revoked is not None:\n            raise",
        "if False:\n            raise",
        "tests/contract/test_tenants.py::test_a_key_speaks_for_its_tenant_until_it_is_revoked",
    ),
    "a demanded call is not enforced": Mutation(
        "gateway/tools.py",
        "if not self.must and asked.constraint is None:",
        "if asked.constraint is None:",
        "tests/unit/gateway/test_tools.py::test_a_required_call_is_one_and_its_arguments_are_valid",
    ),
    "a named function is one of many": Mutation(
        "gateway/tools.py",
        "return Tools(tuple(functions), named, must=True, parallel=False)",
        "return Tools(tuple(functions), tuple(functions), must=True, parallel=False)",
        "tests/unit/gateway/test_tools.py::test_a_named_function_is_called_once",
    ),
    "a brace in a string ends a call": Mutation(
        "gateway/tool_objects.py",
        "        elif character == '\"':\n            self._in_string = True\n",
        "",
        "tests/property/test_tool_calls.py::test_calls_come_back_as_they_were_written",
    ),
    "a call of what was not offered is a call": Mutation(
        "gateway/tool_objects.py",
        "if name is None or name not in self._names:",
        "if name is None:",
        "tests/unit/gateway/test_tool_calls.py::"
        "test_whatever_is_no_call_of_an_offered_function_is_text",
    ),
    "text that was no call is lost": Mutation(
        "gateway/tool_calls.py",
        "        self._left.extendleft(reversed(held))\n",
        "",
        "tests/property/test_tool_calls.py::test_what_holds_no_call_is_unchanged",
    ),
    "a tag across two pieces is missed": Mutation(
        "gateway/tool_calls.py",
        'said, calls = "", list[CallPiece]()',
        'said, calls, self._held = self._held, list[CallPiece](), ""',
        "tests/property/test_tool_calls.py::test_any_split_gives_the_same",
    ),
    "a client names its request": Mutation(
        "gateway/http_request_ids.py",
        "drawn = RequestId(uuid.uuid4().hex)",
        "drawn = RequestId(_hint(Headers(scope=scope)) or uuid.uuid4().hex)",
        "tests/unit/gateway/test_http.py::"
        "test_every_answer_names_its_request_and_no_client_chooses_the_name",
    ),
    "a failure in the middle of a stream is a quiet end": Mutation(
        "gateway/http_completions.py",
        "            yield _event(error_body(error))\n            return\n",
        "            pass\n",
        "tests/unit/gateway/test_http.py::"
        "test_a_failure_in_the_middle_of_a_stream_is_an_error_of_the_client",
    ),
    "of a key that is there twice the last counts": Mutation(
        "gateway/strict_json.py",
        "if len(found) < len(pairs):",
        "if False:",
        "tests/unit/gateway/test_strict_json.py::test_the_rest_is_refused",
    ),
    "anybody may infer": Mutation(
        "runtime/access.py",
        'Scope.GENERATE: ("ModelInfer",)',
        'Scope.PUBLIC: ("ModelInfer",)',
        "tests/unit/runtime/test_access.py::test_what_needs_no_key_is_how_servers_are",
    ),
}
