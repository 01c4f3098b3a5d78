"""Every invariant's test can fail: break the line that keeps it, and the test must notice."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Mutation:
    """`before` becomes `after` in services/`file`; `test` must then fail."""

    file: str
    before: str
    after: str
    test: str


MUTATIONS = {
    "an adapter is mixed up": Mutation(
        "gpu_worker/model/runner.py",
        "bank = self._banks[adapter]",
        "bank = next(iter(self._banks.values()))",
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
        "tests/contract/test_parity_families.py::test_a_mixed_batch_agrees_with_the_reference",
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
    "a constraint is not followed": Mutation(
        "gpu_worker/engine/engine.py",
        "request.filter is not None and request.filter.advance(token)",
        "request.filter is None and False",
        "tests/unit/gpu_worker/test_grammar.py::test_each_of_a_batch_matches_its_own",
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
        "self.finite = self.finite and is_finite(self.dtype, piece)",
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
        ".where(Row.tenant == tenant, Row.adapter == name)\n        .where(Row.deleted",
        ".where(Row.adapter == name)\n        .where(Row.deleted",
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
        ".where(Row.deleted_us.is_(None), AdapterRow.deleted_us.is_(None))\n    )\n\n\nclass",
        ")\n\n\nclass",
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
        "        await session.execute(select(func.pg_advisory_xact_lock(_ORDER)))\n",
        "",
        "tests/contract/test_changes.py::"
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
        '        await session.execute(select(func.pg_notify(CHANNEL, "")))\n',
        "",
        "tests/contract/test_notices.py::test_what_one_store_commits_wakes_the_watchers_of_another",
    ),
    "what was promoted is not fetched": Mutation(
        "gpu_worker/prefetch.py",
        "(change.digest, change.canary_digest) if digest]",
        "(change.canary_digest,) if digest]",
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
        "return Caller(key.tenant, key.id)",
        'return Caller(key.tenant, KeyId(metadata.get("x-lorikeet-key", key.id)))',
        "tests/contract/test_tenants.py::test_metadata_gives_nobody_another_tenant_or_key[sqlite]",
    ),
    "a forged header speaks for another tenant": Mutation(
        "gateway/tenants.py",
        "return Caller(key.tenant, key.id)",
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
        "gateway/tenants.py",
        "if key.revoked is not None:\n            raise",
        "if False:\n            raise",
        "tests/contract/test_tenants.py::test_a_key_speaks_for_its_tenant_until_it_is_revoked",
    ),
    "a link leads out of an imported folder": Mutation(
        "cli/sources/folders.py",
        "if not path.resolve().is_relative_to(within):",
        "if False:",
        "tests/unit/cli/test_sources.py::test_no_link_leads_outside",
    ),
    "a name leads out of an archive": Mutation(
        "cli/sources/archives.py",
        'if entry.path.is_absolute() or ".." in entry.path.parts:',
        "if False:",
        "tests/unit/cli/test_sources.py::test_nothing_leads_outside_of_an_archive",
    ),
    "a tar's link is followed": Mutation(
        "cli/sources/archives.py",
        "plain=info.isreg() and not info.issparse(),",
        "plain=True,",
        "tests/unit/cli/test_sources.py::test_a_tar_with_anything_but_files_is_refused",
    ),
    "an archive is unpacked without end": Mutation(
        "cli/sources/archives.py",
        "self._limit = limit",
        "self._limit = sys.maxsize",
        "tests/unit/cli/test_sources.py::test_a_tar_bomb_is_not_unpacked_even_to_pass_over_it",
    ),
    "an archive's checksum is not read": Mutation(
        "cli/sources/archives.py",
        "while unpack and guarded.read(CHUNK_BYTES):",
        "while False:",
        "tests/unit/cli/test_sources.py::test_a_damaged_archive_is_one_sentence",
    ),
    "ranges of two objects are mixed": Mutation(
        "cli/sources/s3.py",
        '"if_match": entry["e_tag"]',
        '"if_match": None',
        "tests/unit/cli/test_s3.py::test_an_object_that_changes_meanwhile_is_not_mixed",
    ),
    "an imported GGUF adapter keeps llama.cpp's order of rows": Mutation(
        "cli/sources/gguf.py",
        'PERMUTED = ("llama",)',
        "PERMUTED = ()",
        "tests/contract/test_gguf_adapters.py::test_every_tensor_is_back_bit_for_bit",
    ),
    "an imported GGUF adapter loses a rank": Mutation(
        "cli/sources/gguf.py",
        '"rank_pattern": pattern,',
        '"rank_pattern": {},',
        "tests/contract/test_gguf_adapters.py::test_ranks_and_layers_of_their_own_are_kept",
    ),
    "an exported B lies the wrong way": Mutation(
        "cli/export.py",
        "named if form < TRANSPOSED",
        "named if form <= TRANSPOSED",
        "tests/contract/test_export.py::test_peft_loads_what_it_had_saved",
    ),
}


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_the_test_notices(name: str, tmp_path: Path) -> None:
    mutation = MUTATIONS[name]
    shutil.copytree(ROOT / "services", tmp_path / "services")
    file = tmp_path / "services" / mutation.file
    source = file.read_text()
    assert source.count(mutation.before) == 1, "the mutation no longer fits the code"
    file.write_text(source.replace(mutation.before, mutation.after))
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
            "-o", f"pythonpath={tmp_path} .", mutation.test,
        ],
        cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
