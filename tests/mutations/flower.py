"""Of federated jobs: whose updates count, what a crash costs, who may take part."""

from tests.mutations.mutation import Mutation

_ROUNDS = "tests/unit/trainer/test_federated_rounds.py::"
_RUNNER = "tests/unit/trainer/test_runner.py::"
_SITE = "tests/unit/trainer/test_site.py::"
_RESULT = "tests/unit/trainer/test_federated_result.py::"
_CERTIFICATES = "tests/unit/trainer/test_certificates.py::"
_FEDERATION = "tests/unit/trainer/test_federation.py::"

FLOWER: dict[str, Mutation] = {
    "who knows the job knows the noise": Mutation(
        "trainer/flower/rounds.py",
        "seed=secrets.randbits(64),",
        "seed=self._task.config.seed,",
        _ROUNDS + "test_updates_are_cut_and_noise_is_added_where_it_is_asked_for",
    ),
    "a federation begins anew": Mutation(
        "trainer/flower/rounds.py",
        "        if self._task.checkpoint:\n",
        "        if False:\n",
        _ROUNDS + "test_going_on_after_any_round_gives_the_same_bytes[slora]",
    ),
    "who took part is forgotten": Mutation(
        "trainer/flower/checkpoints.py",
        '"participants": [asdict(each) for each in reached.participants.values()]',
        '"participants": []',
        _ROUNDS + "test_going_on_after_any_round_gives_the_same_bytes[flexlora]",
    ),
    "a spoilt update counts": Mutation(
        "trainer/flower/rounds.py",
        'why = checked([_update(answer)], first, limits)[1].get(answer.client, "")',
        "checked([_update(answer)], first, limits)",
        _ROUNDS + "test_an_update_that_would_spoil_all_is_left_out[nan]",
    ),
    "a round without a quorum counts": Mutation(
        "trainer/flower/collecting.py",
        "return len(self.good) >= self.quorum",
        "return bool(self.good)",
        _ROUNDS + "test_too_few_are_asked_again_and_then_it_is_said_who_is_missing",
    ),
    "good updates are asked for again": Mutation(
        "trainer/flower/collecting.py",
        "        self.asked = set(self.good)\n",
        "        self.asked, self.good = set(), {}\n",
        _ROUNDS + "test_too_few_are_asked_again_and_then_it_is_said_who_is_missing",
    ),
    "who comes late is not asked": Mutation(
        "trainer/flower/collecting.py",
        "        self.asked.update(found)\n",
        "        self.asked.update(self.awaited)\n",
        _ROUNDS + "test_a_site_that_dials_in_late_is_asked_in_the_same_round",
    ),
    "an update counts twice": Mutation(
        "trainer/flower/collecting.py",
        "if client not in self.asked or client in self.good:",
        "if client not in self.asked:",
        _ROUNDS + "test_one_attempt_does_not_take_a_second_answer",
    ),
    "an update may be as far off as it likes": Mutation(
        "trainer/flower/rounds.py",
        "limits = Limits(norm=self._federation.norm_bound)",
        "limits = Limits()",
        _ROUNDS + "test_an_update_that_would_spoil_all_is_left_out[far]",
    ),
    "who lies moves a job's average": Mutation(
        "trainer/flower/meaning.py",
        "        average=federation.average,\n",
        "",
        _ROUNDS + "test_one_that_lies_moves_a_median_no_further_than_others_do",
    ),
    "updates are not cut": Mutation(
        "trainer/flower/rounds.py",
        "        if not federation.clip_norm:\n",
        "        if True:\n",
        _ROUNDS + "test_updates_are_cut_and_noise_is_added_where_it_is_asked_for",
    ),
    "any label is learnt": Mutation(
        "trainer/flower/site.py",
        "            if each.target not in labels:\n",
        "            if False:\n",
        _SITE + "test_bad_rows_are_named_by_file_and_line",
    ),
    "another base is trained on": Mutation(
        "trainer/flower/site.py",
        "    if site.fingerprint != brief.base.fingerprint:\n",
        "    if False:\n",
        _SITE + "test_another_base_or_another_name_is_refused",
    ),
    "a layer of another scaling is scaled wrongly": Mutation(
        "trainer/flower/saving.py",
        "share = np.float32(factors.scaling / scaling)",
        "share = np.float32(1)",
        _RESULT + "test_peft_adds_the_very_product_whatever_rank_and_scaling_a_layer_has",
    ),
    "half a line is news": Mutation(
        "trainer/flower/news.py",
        'return [line for line in lines if line.endswith(b"\\n")]',
        "return lines",
        _RESULT + "test_news_are_whole_and_all_heard",
    ),
    "what a driver started outlives it": Mutation(
        "trainer/process.py",
        "            os.killpg(process.pid, signal.SIGKILL)\n",
        "            process.kill()\n",
        _RUNNER + "test_a_federated_job_goes_on_after_its_driver_died_and_says_who_took_part",
    ),
    "Flower's programs hear of tokens": Mutation(
        "trainer/flower_driver/environment.py",
        "        ours = _known(os.environ)\n",
        "        ours = dict(os.environ)\n",
        _CERTIFICATES + "test_flowers_programs_hear_of_no_secrets_and_tell_nobody",
    ),
    "keys are for all to read": Mutation(
        "trainer/flower_driver/certificates.py",
        "    _write(file, pem, mode=0o600)\n",
        "    _write(file, pem)\n",
        _CERTIFICATES + "test_an_authority_is_made_once_and_secrets_are_its_owners",
    ),
    "two sites have one key": Mutation(
        "trainer/federation.py",
        'for what in ("name", "public_key"):',
        'for what in ("name",):',
        _FEDERATION + "test_participants_are_different_and_have_keys",
    ),
}
