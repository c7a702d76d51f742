"""Settings are read once, judged together, and none is ever silently ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from enginehouse.errors import SettingsError
from enginehouse.settings import effective, known_variables, load, redacted


def _refusal(environment: dict[str, str], config: Path | None = None) -> SettingsError:
    with pytest.raises(SettingsError) as refused:
        load(config, environment)
    return refused.value


def test_the_environment_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    """Field by field: a section set in two places is merged."""
    file = tmp_path / "house.toml"
    file.write_text("[gateway]\nport = 9001\nworkers = 3\n")
    settings = load(file, {"ENGINEHOUSE_GATEWAY__PORT": "9002"}).settings
    assert (settings.gateway.port, settings.gateway.workers, settings.gateway.host) == (9002, 3, "127.0.0.1")


def test_yaml_works_as_toml_does(tmp_path: Path) -> None:
    """By the file's ending; ENGINEHOUSE_CONFIG names the file as --config does."""
    file = tmp_path / "house.yaml"
    file.write_text("gateway:\n  port: 9001\n")
    assert load(None, {"ENGINEHOUSE_CONFIG": str(file)}).settings.gateway.port == 9001


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ENGINEHOUSE_GATEWAY__PROT", "ENGINEHOUSE_GATEWAY__PORT"),
        ("ENGINEHOUSE_REDIS_URL", "ENGINEHOUSE_REGISTRY__REDIS_URL"),
        ("enginehouse_gateway__workerz", "ENGINEHOUSE_GATEWAY__WORKERS"),
    ],
)
def test_a_variable_that_nothing_reads_stops_the_start(name: str, nearest: str) -> None:
    """It is named, with the nearest one that is read."""
    refused = _refusal({name: "1"})
    assert name in refused.message
    assert nearest in (refused.remedy or "")


def test_variables_of_others_are_none_of_our_business() -> None:
    """Only our prefix counts."""
    load(None, {"PATH": "/bin", "ENGINE": "x", "ENGINEHOUSEKEEPING": "y"})


def test_every_setting_can_be_set_by_its_variable() -> None:
    """The names that `config` prints are the names that are read."""
    for setting in effective(load(None, {})):
        variable = "ENGINEHOUSE_" + setting.name.replace(".", "__").upper()
        assert variable in known_variables()


def test_a_wrong_value_names_the_setting_and_where_it_was_set(tmp_path: Path) -> None:
    """All wrong settings at once, from wherever they came."""
    file = tmp_path / "house.toml"
    file.write_text("[gateway]\nworkers = 0\n[router]\nmax_attempt = 2\n")
    refused = _refusal({"ENGINEHOUSE_GATEWAY__PORT": "70000"}, file)
    told = refused.remedy or ""
    assert "gateway.port" in told
    assert "ENGINEHOUSE_GATEWAY__PORT" in told
    assert f"gateway.workers: Input should be greater than or equal to 1 (set by {file})" in told
    assert "router.max_attempt" in told
    assert refused.exit_code == 2


def test_settings_are_judged_together() -> None:
    """A part of a request that may last longer than the whole is refused, with both names."""
    refused = _refusal(
        {"ENGINEHOUSE_GATEWAY__REQUEST_TIMEOUT_S": "100", "ENGINEHOUSE_GATEWAY__FIRST_BYTE_TIMEOUT_S": "100"}
    )
    assert "gateway.first_byte_timeout_s (100) must be below gateway.request_timeout_s (100)" in (
        refused.remedy or ""
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [("absent.toml", None), ("bad.toml", "gateway = ["), ("list.yaml", "- 1\n"), ("bad.yaml", "a: [")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, text: str | None) -> None:
    """Missing, malformed, or without sections."""
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    assert str(file) in _refusal({}, file).message


def test_effective_settings_tell_their_source_and_no_secret(tmp_path: Path) -> None:
    """A password in a URL is never printed."""
    file = tmp_path / "house.toml"
    file.write_text("[gateway]\nworkers = 2\n")
    loaded = load(file, {"ENGINEHOUSE_REGISTRY__REDIS_URL": "rediss://user:secret@redis:6380/0"})
    rows = {row.name: row for row in effective(loaded)}
    assert rows["registry.redis_url"].shown == "rediss://***@redis:6380/0"
    assert rows["registry.redis_url"].source == "ENGINEHOUSE_REGISTRY__REDIS_URL"
    assert rows["gateway.workers"].source == str(file)
    assert rows["gateway.port"].source == "default"
    assert not any("secret" in row.shown for row in rows.values())


@pytest.mark.parametrize("name", ["registry.password", "otlp.bearer_token", "gateway.api_key"])
def test_what_is_called_a_secret_is_not_shown(name: str) -> None:
    """By its name, whatever its type."""
    assert redacted(name, "hunter2") == "***"


def test_a_setting_may_come_by_file(tmp_path: Path) -> None:
    """`_FILE` names the file; `config` says that, and nothing of what the file holds."""
    file = tmp_path / "redis_url"
    file.write_text("redis://:tea@redis:6379/0\n")
    loaded = load(None, {"ENGINEHOUSE_REGISTRY__REDIS_URL_FILE": str(file)})
    assert loaded.settings.registry.redis_url == "redis://:tea@redis:6379/0"
    shown = next(one for one in effective(loaded) if one.name == "registry.redis_url")
    assert (shown.shown, shown.source) == ("***", "ENGINEHOUSE_REGISTRY__REDIS_URL_FILE")


def test_a_file_that_does_not_serve_is_named(tmp_path: Path) -> None:
    """Missing, empty, or set beside the value itself."""
    empty = tmp_path / "empty"
    empty.touch()
    variable = "ENGINEHOUSE_REGISTRY__REDIS_URL_FILE"
    for environment, said in [
        ({variable: str(tmp_path / "none")}, "none: No such file"),
        ({variable: str(empty)}, "is empty"),
        ({variable: str(empty), "ENGINEHOUSE_REGISTRY__REDIS_URL": "redis://a"}, "both set"),
    ]:
        refused = _refusal(environment)
        assert variable in refused.message
        assert said in refused.message


def test_a_file_for_what_is_no_setting_stops_the_start() -> None:
    """As any variable that nothing reads; the trace file's own name is no such thing."""
    assert "ENGINEHOUSE_GATEWAY__PROT_FILE" in _refusal({"ENGINEHOUSE_GATEWAY__PROT_FILE": "x"}).message
    loaded = load(None, {"ENGINEHOUSE_TELEMETRY__TRACE_FILE": "/tmp/spans"})
    assert loaded.settings.telemetry.trace_file == Path("/tmp/spans")
