"""Of the trainer: who does a job, what is lost, what is published."""

from tests.mutations.mutation import Mutation

_JOBS = "tests/contract/test_jobs.py::"
_RUNNER = "tests/unit/trainer/test_runner.py::"
_TRAINING = "tests/unit/trainer/test_training.py::"
_RESUMED = _TRAINING + "test_a_resumed_job_ends_with_the_same_weights_bit_for_bit"

TRAINING: dict[str, Mutation] = {
    "who lost a job writes on": Mutation(
        "trainer/repository.py",
        "JobRow.id == lease.job, JobRow.term == lease.term, ",
        "JobRow.id == lease.job, ",
        _JOBS + "test_who_was_silent_has_lost_the_job[sqlite]",
    ),
    "a cancelled job is published": Mutation(
        "trainer/repository.py",
        "held = (JobRow.id == lease.job, JobRow.term == lease.term, JobRow.state.in_(_HELD))",
        "held = (JobRow.id == lease.job, JobRow.term == lease.term)",
        _JOBS + "test_a_cancelled_job_is_nobodys[sqlite]",
    ),
    "who beats loses the job": Mutation(
        "trainer/repository.py",
        "(row for row in found if row.beat == silent[row.id])",
        "iter(found)",
        _JOBS + "test_who_beats_keeps_the_job[sqlite]",
    ),
    "several take what was left": Mutation(
        "trainer/repository.py",
        "row.term, row.beat, row.holder = row.term + 1, row.beat + 1, holder[:255]",
        "row.term, row.holder = row.term + 1, holder[:255]",
        _JOBS + "test_only_one_takes_what_was_left[sqlite]",
    ),
    "a tenant with many jobs is always next": Mutation(
        "trainer/repository.py",
        ".order_by(underway, JobRow.number)",
        ".order_by(JobRow.number)",
        _JOBS + "test_who_has_less_under_way_is_next[sqlite]",
    ),
    "a job is everybody's": Mutation(
        "trainer/repository.py",
        "query = select(JobRow).where(JobRow.tenant == tenant, JobRow.id == job)",
        "query = select(JobRow).where(JobRow.id == job)",
        _JOBS + "test_a_job_is_as_it_was_asked_for[sqlite]",
    ),
    "a process outlives its job": Mutation(
        "trainer/process.py",
        "            os.killpg(process.pid, signal.SIGKILL)\n        await process.wait()\n",
        "            pass\n",
        _RUNNER + "test_a_trainer_that_stops_leaves_its_job_to_others",
    ),
    "a process goes on from what was not saved": Mutation(
        "trainer/tasks.py",
        "            checkpoint=job.checkpoint,\n            device=",
        '            checkpoint=job.checkpoint and "another",\n            device=',
        _RUNNER + "test_a_process_that_dies_goes_on_from_its_checkpoint",
    ),
    "a checkpoint goes before the next is known": Mutation(
        "trainer/runner.py",
        "            saved = news.name\n",
        "            (self._tasks.folder_of(job) / (saved := news.name)).unlink(missing_ok=True)\n",
        _RUNNER + "test_a_process_that_dies_goes_on_from_its_checkpoint",
    ),
    "a job has two versions": Mutation(
        "trainer/publication.py",
        "    version = await store.version_of(job)\n    if version is None:\n",
        "    await store.version_of(job)\n    if True:\n",
        _RUNNER + "test_a_version_is_published_once_however_often_it_is_tried",
    ),
    "packed examples see each other": Mutation(
        "trainer/training/losses.py",
        "position for each in pack for position in range(len(each.tokens))",
        "position for position, _ in enumerate(t for each in pack for t in each.tokens)",
        _TRAINING + "test_packed_examples_do_not_see_each_other",
    ),
    "small packs weigh as much as large ones": Mutation(
        "trainer/training/centralised.py",
        "loss = losses.sum() / targets",
        "loss = losses.mean() / len(packs)",
        _TRAINING + "test_packs_of_a_step_add_up_to_one_larger",
    ),
    "moments are forgotten": Mutation(
        "trainer/training/centralised.py",
        '        self._optimiser.load_state_dict({"state": state, "param_groups": groups})\n',
        "",
        _RESUMED,
    ),
    "dropout begins anew": Mutation(
        "trainer/training/checkpoints.py",
        '    torch.set_rng_state(tensors.pop("generator.cpu"))\n',
        '    tensors.pop("generator.cpu")\n',
        _RESUMED,
    ),
    "data begins anew": Mutation(
        "trainer/training/centralised.py",
        "islice(steps(self._lengths, self._config), done.steps, self._total)",
        "islice(steps(self._lengths, self._config), self._total - done.steps)",
        _RESUMED,
    ),
    "the last weights are taken for the best": Mutation(
        "trainer/training/centralised.py",
        "            self._network.load(self._best)\n",
        "            pass\n",
        _TRAINING + "test_it_stops_early_with_the_best_weights",
    ),
    "a loss that is not a number is learnt from": Mutation(
        "trainer/training/centralised.py",
        "if not math.isfinite(found):",
        "if False:",
        _TRAINING + "test_a_loss_that_is_not_finite_names_step_and_lines",
    ),
    "a question is learnt": Mutation(
        "trainer/training/encoding.py",
        "max(1, len(before))",
        "1",
        _TRAINING + "test_tokens_are_those_of_a_request_and_end_with_the_end",
    ),
    "an answer never ends": Mutation(
        "trainer/training/encoding.py",
        "        answer = self._ended(answer)\n",
        "",
        _TRAINING + "test_tokens_are_those_of_a_request_and_end_with_the_end",
    ),
    "who is cancelled again while it ends work cancels that again": Mutation(
        "runtime/beside.py",
        "            await asyncio.shield(ended)\n        except",
        "            await asyncio.gather(*tasks, return_exceptions=True)\n        except",
        "tests/unit/runtime/test_beside.py::"
        "test_who_is_cancelled_again_while_it_ends_others_cancels_them_once",
    ),
}
