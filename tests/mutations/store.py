"""Of the adapter store."""

from tests.mutations.mutation import Mutation

STORE = {
    "a failed write is kept": Mutation(
        "adapter_store/staging.py",
        "                os.truncate(path, committed)",
        "                pass",
        "tests/unit/adapter_store/test_uploads.py::test_a_full_disk_keeps_what_was_acknowledged",
    ),
    "a damaged chunk is taken": Mutation(
        "adapter_store/staging.py",
        "if zlib.crc32(chunk.data) != chunk.crc32:",
        "if False:",
        "tests/unit/adapter_store/test_uploads.py::"
        "test_a_chunk_that_does_not_follow_or_was_damaged_changes_nothing",
    ),
    "a NaN is let in": Mutation(
        "adapter_store/validation.py",
        "self.finite = self.finite and is_finite(self.dtype, piece, self.scaling)",
        "pass",
        "tests/unit/adapter_store/test_validation.py::test_a_weight_that_is_not_finite_is_refused",
    ),
    "an adapter is scaled otherwise than by peft": Mutation(
        "adapter_store/peft.py",
        "math.sqrt(rank) if self.use_rslora",
        "math.sqrt(rank) if not self.use_rslora",
        "tests/property/test_validator.py::test_what_is_not_damaged_is_accepted",
    ),
    "a pattern takes all memory": Mutation(
        "adapter_store/patterns.py",
        '            if found["foreign"]:',
        "            if False:",
        "tests/contract/test_peft_config.py::test_a_pattern_that_would_take_all_memory_is_refused"
        "[(?:q_proj){e<=1}-not supported in patterns]",
    ),
    "layers hold for a module named in full": Mutation(
        "adapter_store/peft.py",
        "if path in self.target_modules:",
        "if False:",
        "tests/contract/test_peft_config.py::"
        "test_selection_ranks_and_scalings_are_pefts_own[full path, whatever its layer]",
    ),
    "a tenant sees another's adapter": Mutation(
        "adapter_store/repositories/versions.py",
        '.where(Row.tenant == bindparam("tenant"), Row.adapter',
        ".where(Row.adapter",
        "tests/contract/test_adapter_repository.py::test_tenants_do_not_see_each_other[sqlite]",
    ),
    "two writers win one generation": Mutation(
        "adapter_store/repositories/aliases.py",
        "if ask.expected_generation not in (None, generation):",
        "if False:",
        "tests/contract/test_aliases.py::test_two_writers_race_and_one_wins_each_generation[sqlite]",
    ),
    "what was deleted is served": Mutation(
        "adapter_store/repositories/versions.py",
        "    Row.deleted_us.is_(None), AdapterRow.deleted_us.is_(None)\n)",
        ")",
        "tests/contract/test_adapter_repository.py::"
        "test_what_is_deleted_is_unknown_until_it_comes_back[sqlite]",
    ),
    "what is not shared is served": Mutation(
        "adapter_store/resolution.py",
        "return await self._shares.allows(asked.owner, asked.name, asked.caller)",
        "return True",
        "tests/contract/test_adapter_repository.py::"
        "test_a_shared_adapter_is_its_owners_name_for_those_it_is_shared_with[sqlite]",
    ),
    "a promotion is answered before it holds": Mutation(
        "adapter_store/repositories/aliases.py",
        '        "generation": made.generation,\n',
        '        "generation": made.generation - 1,\n',
        "tests/contract/test_aliases.py::test_a_move_that_is_sent_again_changes_nothing[sqlite]",
    ),
    "a collection ignores leases": Mutation(
        "adapter_store/repositories/blobs.py",
        "        idle &= BlobRow.leased_until_us < now_us()\n",
        "",
        "tests/contract/test_collection.py::"
        "test_what_is_in_use_stays_and_what_was_deleted_for_good_goes[sqlite]",
    ),
    "rot is not noticed": Mutation(
        "adapter_store/collection.py",
        "return digest.hexdigest() == blob.digest",
        "return True",
        "tests/contract/test_collection.py::test_rot_is_found_and_mended_by_the_same_bytes[sqlite]",
    ),
    "a change is not told": Mutation(
        "adapter_store/repositories/aliases.py",
        "            await changes.record(session, told)\n",
        "",
        "tests/contract/test_changes.py::test_every_change_is_told_once_and_in_order[sqlite]",
    ),
    "a change is told that was undone": Mutation(
        "adapter_store/repositories/uploads.py",
        "await changes.record(session, told_of(",
        "async with writing(self._sessions) as other:\n"
        "                    await changes.record(other, told_of(",
        "tests/contract/test_changes.py::test_a_change_that_is_undone_is_not_told[postgresql]",
    ),
    "an id is given out before its turn": Mutation(
        "adapter_store/repositories/changes.py",
        "func.pg_advisory_xact_lock(_ORDER)",
        "func.length('')",
        "tests/contract/test_change_order.py::"
        "test_nobody_has_a_later_id_before_an_earlier_one_is_there[postgresql]",
    ),
    "a stranger is told": Mutation(
        "adapter_store/repositories/changes.py",
        "        | (~is_share & share.exists())\n",
        "        | ~is_share\n",
        "tests/contract/test_changes.py::"
        "test_a_tenant_sees_its_own_and_what_is_shared_with_it_while_it_is[sqlite]",
    ),
    "other stores are not woken": Mutation(
        "adapter_store/repositories/changes.py",
        'func.pg_notify(CHANNEL, "")',
        "func.length('')",
        "tests/contract/test_notices.py::test_what_one_store_commits_wakes_the_watchers_of_another",
    ),
    "a thread still writes when the next writer comes": Mutation(
        "runtime/beside.py",
        "        await asyncio.wait(tasks)\n    return",
        "        pass\n    return",
        "tests/unit/adapter_store/test_uploads.py::"
        "test_a_call_that_ends_while_a_chunk_is_written_leaves_it_whole",
    ),
    "what was read once is told for good": Mutation(
        "adapter_store/changes.py",
        " or reading[2].done()",
        "",
        "tests/contract/test_changes.py::test_one_who_was_not_woken_finds_it_by_looking[sqlite]",
    ),
    "a URL works for another upload": Mutation(
        "adapter_store/signing.py",
        'if not hmac.compare_digest(self._signature(grant), found["signature"]):',
        "if False:",
        "tests/contract/test_receiver.py::test_a_url_is_of_one_upload",
    ),
    "an expired URL is taken": Mutation(
        "adapter_store/signing.py",
        "if self._now().timestamp() >= grant.expires:",
        "if False:",
        "tests/contract/test_receiver.py::test_an_expired_url_is_refused",
    ),
    "a URL outlives its upload": Mutation(
        "adapter_store/uploads.py",
        "upload = await self._own(grant.upload_id, None)",
        "upload, _ = await self._find(grant.upload_id, None)",
        "tests/contract/test_receiver.py::test_a_url_is_refused_once_its_upload_has_ended",
    ),
    "a URL takes more than was declared": Mutation(
        "adapter_store/staging.py",
        "if committed + length > upload.size_bytes:",
        "if False:",
        "tests/contract/test_receiver.py::test_more_than_was_declared_is_refused",
    ),
    "bytes unlike their digest are committed": Mutation(
        "adapter_store/staging.py",
        "if arrival.hexdigest() != sha256:",
        "if False:",
        "tests/contract/test_doors.py::"
        "test_bytes_unlike_their_digest_are_refused_and_gone[folder-at the end]",
    ),
    "a canonical upload is not looked at": Mutation(
        "adapter_store/arrival.py",
        "            self._watch(data)\n",
        "",
        "tests/contract/test_arranged.py::test_a_cut_upload_goes_on_wherever_it_was[False-cuts1]",
    ),
    "a wrong byte in a canonical upload is taken": Mutation(
        "adapter_store/staging.py",
        "if arrival.hexdigest() != sha256:",
        "if arrangement is None and arrival.hexdigest() != sha256:",
        "tests/contract/test_arranged.py::test_bytes_unlike_their_digest_are_refused_and_gone",
    ),
    "the hash of a part of an upload is taken for the whole's": Mutation(
        "adapter_store/arrival.py",
        "if start == self.done:",
        "if True:",
        "tests/contract/test_arranged.py::test_a_cut_upload_goes_on_wherever_it_was[True-cuts1]",
    ),
    "values are judged by what was told, not by what came": Mutation(
        "adapter_store/staging.py",
        "if arrangement is not None and not _is_of(arrival, arrangement):",
        "if False:",
        "tests/contract/test_arranged.py::test_values_are_judged_by_what_came_not_by_what_was_told",
    ),
    "a header that the store would not write is taken": Mutation(
        "adapter_store/arrangement.py",
        "if found.head != read_header(file):",
        "if False:",
        "tests/contract/test_arranged.py::"
        "test_a_header_that_is_not_the_canonical_one_is_refused[_swapped-not the canonical one]",
    ),
    "what is linked is taken from who sent it": Mutation(
        "adapter_store/incoming.py",
        "self._path.hardlink_to(self._file)",
        "self._file.replace(self._path)",
        "tests/contract/test_arranged.py::test_what_cannot_be_committed_can_be_finished_again",
    ),
    "what follows a write that failed is written": Mutation(
        "adapter_store/receiving.py",
        "            self._has_failed = True\n",
        "",
        "tests/property/test_arrival.py::test_nothing_is_written_behind_what_could_not_be",
    ),
    "what nobody finishes stays in the bucket": Mutation(
        "adapter_store/collection.py",
        "            await self._door.discard(upload)\n",
        "            pass\n",
        "tests/contract/test_doors.py::test_what_nobody_finishes_is_collected[s3]",
    ),
}
