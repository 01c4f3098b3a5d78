"""Settings that are wrong stop a service before it starts, with every problem named."""

import pytest

from services.gateway.settings import GatewaySettings
from services.gpu_worker.settings import GpuWorkerSettings
from services.runtime.settings import load

GOOD = {
    "GATEWAY_DATABASE_URL": "sqlite+aiosqlite:///x.db",
    "GATEWAY_SERVICE_TOKEN": "s3cret",
    "GATEWAY_OPERATOR_TOKEN": "operator",
    "GATEWAY_KEY_PEPPER": "pepper",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        load(GatewaySettings)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_good_settings_are_read_and_secrets_do_not_show() -> None:
    settings = load(GatewaySettings)
    assert settings.service_token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)


def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GATEWAY_KEY_PEPPER")
    monkeypatch.delenv("GATEWAY_DATABASE_URL")
    said = refusal(capsys)
    assert "GATEWAY_KEY_PEPPER: Field required" in said
    assert "GATEWAY_DATABASE_URL: Field required" in said


def test_a_wrong_type_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_DRAIN_SECONDS", "soon")
    assert "GATEWAY_DRAIN_SECONDS: Input should be a valid number" in refusal(capsys)


def test_a_misspelt_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_HTTP_ADRESS", "127.0.0.1:1")
    assert "GATEWAY_HTTP_ADRESS" in refusal(capsys)


def test_nested_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_WORKER_SERVICE_TOKEN", "x")
    monkeypatch.setenv("GPU_WORKER_MODEL_PATH", "/model")
    monkeypatch.setenv("GPU_WORKER_LIMITS__MAX_SEQUENCES", "3")
    assert load(GpuWorkerSettings).limits.max_sequences == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("LIMITS__MAX_SEQUENCES", "0"), ("LIMITS__PAGE_TOKENS", "-1"), ("HOST_CACHE_MEBIBYTES", "0")],
)
def test_budgets_must_leave_room_to_work(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPU_WORKER_SERVICE_TOKEN", "x")
    monkeypatch.setenv("GPU_WORKER_MODEL_PATH", "/model")
    monkeypatch.setenv(f"GPU_WORKER_{name}", value)
    with pytest.raises(SystemExit):
        load(GpuWorkerSettings)
    assert name.rpartition("__")[2] in capsys.readouterr().err.upper()


def test_adapters_are_merged_into_floats_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPU_WORKER_SERVICE_TOKEN", "x")
    monkeypatch.setenv("GPU_WORKER_MODEL_PATH", "/model")
    monkeypatch.setenv("GPU_WORKER_WEIGHTS", "int8")
    assert load(GpuWorkerSettings).weights == "int8"
    monkeypatch.setenv("GPU_WORKER_MERGING", "auto")
    with pytest.raises(SystemExit):
        load(GpuWorkerSettings)
    assert "GPU_WORKER_MERGING" in (said := capsys.readouterr().err)
    assert "adapters cannot be merged into int8 weights" in said
