"""Settings: every section of every package, read once from file and environment, and judged together.

The environment wins over the file, the file over defaults. Only this module reads settings from the
environment: `ENGINEHOUSE_<SECTION>__<FIELD>`, or the same with `_FILE` for the file that holds the value. A
variable with our prefix that nothing reads stops the start.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from controller.config import ControllerConfig
from engine_builder.config import BuilderConfig
from engine_builder.engines_config import EnginesConfig
from enginehouse.connection import ADMIN_KEY_ENV, API_KEY_ENV, URL_ENV
from enginehouse.errors import SettingsError
from enginehouse.local.state_dir import STATE_DIR_ENV
from enginehouse.local.triton_environment import ENV_DIR
from enginehouse.secret_files import SUFFIX, with_files
from gateway.batch_jobs.config import BatchJobsConfig
from gateway.config import GatewayConfig
from model_registry.config import RegistryConfig
from model_registry.slices.config import SlicesConfig
from router.config import RouterConfig
from telemetry.config import TelemetryConfig

PREFIX = "ENGINEHOUSE_"
DELIMITER = "__"
CONFIG_ENV = "ENGINEHOUSE_CONFIG"
COMMAND_VARIABLES = frozenset({URL_ENV, API_KEY_ENV, ADMIN_KEY_ENV, STATE_DIR_ENV, CONFIG_ENV, ENV_DIR})
"""Read by the commands themselves, not as settings."""

_SECRET_NAME = re.compile(r"(password|secret|token|_key)$")
_URL_CREDENTIALS = re.compile(r"(?<=://)[^@/\s]+(?=@)")
REDACTED = "***"


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=DELIMITER, frozen=True, extra="forbid"
    )

    registry: RegistryConfig = Field(default_factory=RegistryConfig)
    gateway: GatewayConfig = Field(default_factory=GatewayConfig)
    slices: SlicesConfig = Field(default_factory=SlicesConfig)
    router: RouterConfig = Field(default_factory=RouterConfig)
    batch_jobs: BatchJobsConfig = Field(default_factory=BatchJobsConfig)
    controller: ControllerConfig = Field(default_factory=ControllerConfig)
    builder: BuilderConfig = Field(default_factory=BuilderConfig)
    engines: EnginesConfig = Field(default_factory=EnginesConfig)
    telemetry: TelemetryConfig = Field(default_factory=TelemetryConfig)

    @model_validator(mode="after")
    def _timeouts_nest(self) -> Self:
        """A part of a request may not be allowed longer than the whole; it would never fire."""
        gateway, whole_s = self.gateway, self.gateway.request_timeout_s
        parts = {
            "gateway.connect_timeout_s": gateway.connect_timeout_s,
            "gateway.first_byte_timeout_s": gateway.first_byte_timeout_s,
            "gateway.idle_timeout_s": gateway.idle_timeout_s,
            "router.no_endpoint_timeout_s": self.router.no_endpoint_timeout_s,
            "router.holding.max_wait_s": self.router.holding.max_wait_s,
        }
        for name, part_s in parts.items():
            if part_s is not None and part_s >= whole_s:
                raise ValueError(f"{name} ({part_s:g}) must be below gateway.request_timeout_s ({whole_s:g})")
        return self

    @model_validator(mode="after")
    def _endpoints_outlive_the_looks(self) -> Self:
        """Endpoints that lapse between two renewals would come and go."""
        period_s, ttl_s = self.controller.interval_s, self.registry.endpoint_ttl_s
        if 2 * period_s >= ttl_s:
            raise ValueError(
                f"registry.endpoint_ttl_s ({ttl_s:g}) must be above 2 x controller.interval_s ({period_s:g})"
            )
        return self


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and what they were read from."""

    settings: Settings
    file: Path | None
    file_values: Mapping[str, Any]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting as an operator may see it."""

    name: str
    """`section.field`."""
    shown: str
    source: str
    """`default`, the name of a variable, or the settings file."""


def load(config: Path | None = None, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read and judge all settings.

    `config` defaults to `ENGINEHOUSE_CONFIG`. Raises SettingsError naming every wrong setting, where it
    was set and what is allowed.
    """
    variables = os.environ if environment is None else environment
    path = config or (Path(named) if (named := variables.get(CONFIG_ENV)) else None)
    refuse_unknown(variables)
    values = read_file(path) if path else {}
    try:
        settings = _sourced(values, with_files(variables, _setting_variables()))()
    except ValidationError as error:
        raise _explained(error, path, values, variables) from error
    return Loaded(settings, path, values, variables)


def _sourced(file_values: Mapping[str, Any], environment: Mapping[str, str]) -> type[Settings]:
    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings calls by name
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            variables = EnvSettingsSource(settings_cls)
            variables.env_vars = {name.lower(): value for name, value in environment.items()}
            return variables, InitSettingsSource(settings_cls, init_kwargs=dict(file_values))

    return Sourced


def read_file(path: Path) -> dict[str, Any]:
    """The values of a settings file; raises SettingsError when it cannot be read as TOML or YAML."""
    try:
        text = path.read_text()
        values = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise SettingsError(f"settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path}: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(
            f"settings file {path} holds no sections", f"sections are: {', '.join(_sections())}"
        )
    return values


def refuse_unknown(environment: Mapping[str, str]) -> None:
    """Raise SettingsError for variables with our prefix that nothing reads; suggests the nearest name."""
    known = known_variables()
    unknown = [name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known]
    if not unknown:
        return
    named = ", ".join(sorted(unknown))
    raise SettingsError(
        f"nothing reads {named}", "\n".join(_suggestion(name.upper(), known) for name in sorted(unknown))
    )


def _suggestion(name: str, known: set[str]) -> str:
    field = name.removeprefix(PREFIX)
    nearest = sorted(variable for variable in known if variable.endswith(f"{DELIMITER}{field}"))
    nearest = nearest or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (
        f"did you mean {nearest[0]}?"
        if nearest
        else f"unset {name}; `enginehouse config` lists what there is"
    )


def known_variables() -> set[str]:
    """Every variable that is read, in capitals."""
    settings = _setting_variables()
    by_file = {f"{name}{SUFFIX}" for name in (*settings, API_KEY_ENV, ADMIN_KEY_ENV)}
    return settings | by_file | {_variable(section) for section in _sections()} | COMMAND_VARIABLES


def _setting_variables() -> set[str]:
    return {_variable(name) for name, _ in _fields(Settings)}


def effective(loaded: Loaded) -> list[EffectiveSetting]:
    """Every setting with its source; secrets are not shown."""
    return [_effective(loaded, name) for name, _ in _fields(Settings)]


def _effective(loaded: Loaded, name: str) -> EffectiveSetting:
    source = _source(loaded, name)
    by_file = source == f"{_variable(name)}{SUFFIX}"
    return EffectiveSetting(
        name, REDACTED if by_file else redacted(name, _value(loaded.settings, name)), source
    )


def redacted(name: str, value: Any) -> str:
    """`value` as text, without its secret parts."""
    if value is None:
        return "(off)"
    if isinstance(value, SecretStr) or _SECRET_NAME.search(name):
        return REDACTED
    return _URL_CREDENTIALS.sub(REDACTED, str(value))


def _sections() -> list[str]:
    return list(Settings.model_fields)


def _fields(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and annotation of every leaf."""
    for name, field in model.model_fields.items():
        nested = _nested(field.annotation)
        if nested is None:
            yield f"{above}{name}", field.annotation
        else:
            yield from _fields(nested, f"{above}{name}.")


def _nested(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _variable(name: str) -> str:
    return PREFIX + name.replace(".", DELIMITER).upper()


def _value(settings: BaseModel, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _source(loaded: Loaded, name: str) -> str:
    set_here = {variable.upper() for variable in loaded.environment}
    parts = name.split(".")
    if (by_file := f"{_variable(name)}{SUFFIX}") in set_here:
        return by_file
    for length in range(len(parts), 0, -1):
        if (variable := _variable(".".join(parts[:length]))) in set_here:
            return variable
    values: Any = loaded.file_values
    for part in parts:
        if not isinstance(values, Mapping) or part not in values:
            return "default"
        values = values[part]
    return str(loaded.file)


def _explained(
    error: ValidationError, path: Path | None, values: Mapping[str, Any], environment: Mapping[str, str]
) -> SettingsError:
    known = Loaded(Settings.model_construct(), path, values, environment)
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"])
        source = _source(known, name) if name else "default"
        where = "" if source == "default" else f" (set by {source})"
        lines.append(f"{name or 'settings'}: {problem['msg'].removeprefix('Value error, ')}{where}")
    return SettingsError("settings cannot be used", "\n".join(lines))
