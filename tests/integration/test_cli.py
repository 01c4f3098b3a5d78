"""The lorikeet command against a running suite."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli.app import app
from tests.integration.conftest import BASE, EXAMPLES, Running, parsed, smollm_modules
from tests.peft_folders import peft_config, peft_tensors, write_peft

LORIKEET = str(Path(sys.executable).parent / "lorikeet")
Run = Callable[..., Result]


@pytest.fixture
def run(running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("LORIKEET_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("LORIKEET_SERVER", running.suite.addresses.gateway)
    monkeypatch.setenv("LORIKEET_KEY", running.keys["acme"])
    monkeypatch.setenv("LORIKEET_OPERATOR_TOKEN", running.operator)
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, env=environment)

    return run


def test_a_tenant_from_its_creation_to_its_first_answer(run: Run) -> None:
    assert run("tenants", "create", "fresh").exit_code == 0
    assert "fresh" in {t["name"] for t in parsed(run("tenants", "list", "-o", "json"))}
    made = parsed(run("keys", "create", "fresh", "--label", "laptop", "-o", "json"))[0]
    key = made["secret"]
    listed = parsed(run("keys", "list", "fresh", "-o", "json"))
    assert [entry["label"] for entry in listed] == ["laptop"]
    assert key not in json.dumps(listed)
    folder = str(EXAMPLES / "pirate")
    uploaded = parsed(
        run("adapters", "upload", folder, "--name", "talk", "-o", "json", LORIKEET_KEY=key)
    )
    assert uploaded[0]["number"] == 1
    shown = parsed(run("adapters", "show", "talk", "-o", "json", LORIKEET_KEY=key))
    assert shown[0]["digest"] == uploaded[0]["digest"]
    assert [a["adapter"] for a in parsed(run("adapters", "list", "-o", "json", LORIKEET_KEY=key))]
    asked = ["chat", "How do I boil an egg?", "-m", "talk", "--max-tokens", "8"]
    assert run(*asked, LORIKEET_KEY=key).stdout.startswith("Ahoy")
    answer = parsed(run(*asked, "-o", "json", LORIKEET_KEY=key))
    assert answer["completion_tokens"] == 8
    assert run("keys", "revoke", made["key"]["id"]).exit_code == 0
    assert run(*asked, LORIKEET_KEY=key).exit_code == 4


def test_tenants_belong_to_organisations_and_have_weights(run: Run) -> None:
    group = ["tenants", "organisations"]
    assert run(*group, "create", "group", "--weight", "2").exit_code == 0
    create = ["tenants", "create", "member", "--organisation", "group", "--weight", "3"]
    made = parsed(run(*create, "-o", "json"))[0]
    assert (made["organisation"], made["weight"]) == ("group", 3)
    changed = parsed(run("tenants", "set", "member", "--weight", "0.5", "-o", "json"))[0]
    assert (changed["organisation"], changed["weight"]) == ("group", 0.5)
    left = parsed(run("tenants", "set", "member", "--organisation", "", "-o", "json"))[0]
    assert "organisation" not in left
    assert parsed(run(*group, "set", "group", "--weight", "4", "-o", "json"))[0]["weight"] == 4
    listed = parsed(run(*group, "list", "-o", "json"))
    assert {"name": "group", "weight": 4.0} in listed
    assert run("tenants", "set", "member").exit_code == 2
    assert run("tenants", "set", "member", "--organisation", "nobody").exit_code == 1


def test_a_tenant_may_ask_for_the_tiers_that_the_operator_lets_it_have(run: Run) -> None:
    made = parsed(run("tenants", "create", "calm", "--highest-tier", "flex", "-o", "json"))[0]
    assert made["highest_tier"] == "SERVICE_TIER_FLEX"
    key = parsed(run("keys", "create", "calm", "-o", "json"))[0]["secret"]
    asked = ["chat", "Hi", "-m", BASE, "--max-tokens", "1"]
    assert run(*asked, LORIKEET_KEY=key).exit_code == 0
    refused = run(*asked, "--tier", "priority", LORIKEET_KEY=key)
    assert refused.exit_code == 4
    assert "'flex' at most" in " ".join(refused.output.split())
    assert run("tenants", "set", "calm", "--highest-tier", "priority").exit_code == 0
    assert run(*asked, "--tier", "priority", LORIKEET_KEY=key).exit_code == 0
    row = next(line for line in run("tenants", "list").stdout.splitlines() if "calm" in line)
    assert "priority" in row
    assert run("tenants", "set", "calm", "--highest-tier", "scale").exit_code == 2


def test_a_key_gets_a_new_secret_and_the_old_one_some_time(run: Run) -> None:
    assert run("tenants", "create", "rotating").exit_code == 0
    create = ["keys", "create", "rotating", "--expires-in", "30d", "--scope", "generate"]
    made = parsed(run(*create, "-o", "json"))[0]
    assert made["key"]["scopes"] == ["generate"]
    assert made["key"]["expire_time"] > made["key"]["create_time"]
    key = made["key"]["id"]
    rotated = parsed(run("keys", "rotate", key, "--overlap", "1h", "-o", "json"))[0]
    assert rotated["key"]["id"] == key
    asked = ["chat", "Hi", "-m", BASE, "--max-tokens", "2"]
    for secret in (made["secret"], rotated["secret"]):
        assert run(*asked, LORIKEET_KEY=secret).exit_code == 0
    assert run("adapters", "list", LORIKEET_KEY=rotated["secret"]).exit_code == 4
    last = parsed(run("keys", "rotate", key, "--overlap", "0s", "-o", "json"))[0]
    assert run(*asked, LORIKEET_KEY=rotated["secret"]).exit_code == 4
    assert run(*asked, LORIKEET_KEY=last["secret"]).exit_code == 0


def test_limits_are_set_shown_and_felt(run: Run) -> None:
    assert run("tenants", "create", "modest").exit_code == 0
    key = parsed(run("keys", "create", "modest", "-o", "json"))[0]["secret"]
    limits = ["--requests-per-minute", "1", "--tokens-per-month", "5000"]
    quota = parsed(run("quotas", "set", "modest", *limits, "-o", "json"))[0]
    assert quota["limits"] == {"requests_per_minute": "1", "tokens_per_month": "5000"}
    asked = ["chat", "Hi", "-m", BASE, "--max-tokens", "2"]
    assert run(*asked, LORIKEET_KEY=key).exit_code == 0
    refused = run(*asked, LORIKEET_KEY=key)
    assert refused.exit_code == 1
    assert "limit of requests per minute" in " ".join(refused.output.split())
    lifted = parsed(run("quotas", "set", "modest", "--requests-per-minute", "none", "-o", "json"))
    assert lifted[0]["limits"] == {"tokens_per_month": "5000"}
    assert run(*asked, LORIKEET_KEY=key).exit_code == 0
    shown = run("quotas", "show", LORIKEET_KEY=key).stdout
    assert "tokens_per_month" in shown
    assert "5000" in shown
    counted = parsed(run("quotas", "show", "modest", "-o", "json"))[0]["usage"]
    assert counted["requests_in_minute"] == "2"


def test_tables_name_their_columns(run: Run) -> None:
    shown = run("adapters", "list").stdout
    assert "adapter" in shown
    assert "pirate" in shown
    assert BASE in run("workers", "list").stdout
    assert parsed(run("workers", "list", "-o", "json"))[0]["identity"]["base_model"] == BASE


def test_a_worker_is_cordoned_and_serves_again(run: Run) -> None:
    (worker,) = parsed(run("workers", "list", "-o", "json"))
    name = worker["identity"]["id"]
    assert worker["state"] == "WORKER_STATE_SERVING"
    try:
        cordoned = parsed(run("workers", "cordon", name, "-o", "json"))[0]
        assert cordoned["state"] == "WORKER_STATE_CORDONED"
        assert "cordoned" in run("workers", "show", name).stdout
        why = parsed(run("placement", "explain", "-o", "json"))[0]["workers"]
        assert [each["excluded"] for each in why] == ["takes nothing new"]
    finally:
        served = parsed(run("workers", "uncordon", name, "-o", "json"))[0]
    assert served["state"] == "WORKER_STATE_SERVING"
    assert parsed(run("workers", "rebalance", "--dry-run", "-o", "json")) == []
    assert parsed(run("migrations", "--worker", name, "-o", "json")) == []


def test_an_adapter_is_pinned_and_let_go(run: Run) -> None:
    digest = parsed(run("adapters", "show", "pirate", "-o", "json"))[0]["digest"]
    (worker,) = parsed(run("workers", "list", "-o", "json"))
    name = worker["identity"]["id"]
    assert name in run("placement", "pin", digest).stdout
    assert parsed(run("placement", "pins", "-o", "json"))[0]["adapter_digest"] == digest
    assert "pinned to 1" in run("placement", "explain", digest).stdout
    assert name in run("placement", "preload", digest, "--worker", name).stdout
    assert run("placement", "unpin", digest).exit_code == 0
    assert parsed(run("placement", "pins", "-o", "json")) == []


def test_a_conversation_ends_with_an_empty_line(run: Run) -> None:
    result = CliRunner().invoke(app, ["chat", "-m", "pirate", "--max-tokens", "4"], input="Hi\n\n")
    assert result.exit_code == 0
    assert "Ahoy" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["chat", "Hi", "-m", "nothing"], 1, "'nothing' does not exist"),
        (["workers", "drain", "nobody"], 1, "there is no worker 'nobody'"),
        (["workers", "show", "nobody"], 1, "there is no worker 'nobody'"),
        (["placement", "pin", "pirate"], 1, "must be 64 hexadecimal digits"),
        (["adapters", "show", "nothing"], 1, "'nothing' does not exist"),
        (["adapters", "upload", "/nowhere"], 1, "/nowhere has no adapter_config.json"),
        (["tenants", "create", "No Good"], 1, "name: 1 to 63 of a-z"),
        (["tenants", "create", "acme"], 1, "'acme' exists"),
        (["keys", "create", "nobody"], 1, "no tenant 'nobody'"),
        (["keys", "revoke", "nothing"], 1, "no key 'nothing'"),
        (["keys", "create", "acme", "--scope", "all"], 1, "scopes: 'all' is none of"),
        (["keys", "create", "acme", "--expires-in", "soon"], 2, "--expires-in"),
        (["keys", "rotate", "nothing"], 1, "no key 'nothing'"),
        (["keys", "rotate", "nothing", "--overlap", "400d"], 1, "overlap: must be 0 to 30 days"),
        (["quotas", "set", "nobody", "--tokens-in-total", "1"], 1, "no tenant 'nobody'"),
        (["quotas", "set", "acme", "--tokens-in-total", "-1"], 2, "--tokens-in-total"),
        (["quotas", "set", "acme"], 2, "name a limit"),
        (["keys"], 2, "Usage"),
        (["chat", "Hi", "--temperature", "9"], 2, "temperature"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_an_error_is_one_sentence_and_a_code(
    run: Run, arguments: list[str], code: int, says: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert says in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_an_adapter_that_is_refused_is_explained(run: Run, tmp_path: Path) -> None:
    tensors = peft_tensors(smollm_modules(), names=["q_proj"], rank=4, seed=0)
    folder = write_peft(tmp_path / "bad", peft_config(use_dora=True), tensors)
    said = run("adapters", "upload", str(folder)).output
    assert "use_dora: is not supported" in " ".join(said.split())
    folder = write_peft(tmp_path / "less", peft_config(), tensors)
    said = run("adapters", "upload", str(folder)).output
    assert "model.layers.0.self_attn.v_proj: target_modules selects it" in " ".join(said.split())
    shutil.copy(EXAMPLES / "pirate" / "adapter_config.json", tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04")
    said = run("adapters", "upload", str(tmp_path)).output
    assert "adapter_model.bin is a pickle" in " ".join(said.split())


def test_nobody_there_and_nobody_known_have_codes_of_their_own(run: Run) -> None:
    away = run("workers", "list", LORIKEET_SERVER="127.0.0.1:1")
    assert away.exit_code == 3
    assert "cannot be reached" in away.output
    assert run("workers", "list", LORIKEET_OPERATOR_TOKEN="x").exit_code == 4
    assert run("workers", "list", LORIKEET_OPERATOR_TOKEN="").exit_code == 2


def test_every_command_explains_itself(run: Run) -> None:
    for command in (
        [],
        ["up"],
        ["demo"],
        ["chat"],
        ["tenants", "create"],
        ["keys", "revoke"],
        ["keys", "rotate"],
        ["quotas", "set"],
        ["quotas", "show"],
        ["adapters", "upload"],
        ["workers", "list"],
    ):
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.output
    assert "--install-completion" in run("--help").output


def test_up_runs_until_it_is_stopped(tmp_path: Path) -> None:
    environment = os.environ | {"LORIKEET_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [LORIKEET, "up", "--port", "0", "--memory", "1024"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 90
        while (
            not (tmp_path / "client.json").exists()
            or '"key": "lk_' not in (tmp_path / "client.json").read_text()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        second = subprocess.run(
            [LORIKEET, "up", "--port", "0"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert second.returncode == 1
        assert "already" in second.stderr
    finally:
        process.terminate()
        try:
            said, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Stopping." in said or "Ctrl-C" not in said
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert left.stdout == b""
