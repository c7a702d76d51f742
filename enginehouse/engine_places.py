"""Engines on this machine: the store, the key and the keys that are trusted, by settings and state folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine_builder.engines_config import EnginesConfig
from engine_builder.package import Signer, Trust
from engine_builder.repository.engine_models import Finish
from engine_builder.repository.model_files import from_installation
from enginehouse.local.state_dir import StateDir, default_state_dir
from enginehouse.settings import Settings, load
from model_registry.engine_specs import Runtime


@dataclass(frozen=True)
class EnginePlaces:
    """Where engines are, and whose are taken."""

    config: EnginesConfig
    state: StateDir

    @classmethod
    def find(cls, config: Path | None = None, state_dir: Path | None = None) -> EnginePlaces:
        """By the settings. Raises SettingsError."""
        return cls.of(load(config).settings, state_dir)

    @classmethod
    def of(cls, settings: Settings, state_dir: Path | None = None) -> EnginePlaces:
        """By settings that were read already."""
        return cls(settings.engines, StateDir(state_dir or default_state_dir()))

    @property
    def store(self) -> str:
        """URL or folder of published engines."""
        return self.config.store or str(self.state.root / "engines")

    @property
    def signing_key(self) -> Path:
        """The private key's file, whether it is there yet or not."""
        return self.config.signing_key or self.state.root / "engine-signing.pem"

    def finish(self, runtime: Runtime) -> Finish:
        """What makes packaged models loadable: the emulator's files, or those of a release of TensorRT-LLM.

        The latter raises PackageError, when called, where the settings do not say where they are.
        """
        if runtime == "emulated":
            from emulator.triton.packaged import emulated

            return emulated
        return from_installation(self.config.all_models)

    @cached_property
    def signer(self) -> Signer:
        """Signs new engines; its key is made when it is first needed. Raises SignatureError."""
        return Signer.of(self.signing_key)

    @cached_property
    def trust(self) -> Trust:
        """Its own key, and those that the settings name. Raises SignatureError."""
        return Trust.of(self.signer, self.config.trusted_keys, self.config.allow_unsigned)
