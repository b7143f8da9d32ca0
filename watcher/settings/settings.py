"""The settings: read once from the environment or credentials, checked, and frozen."""

import os
import socket
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from watcher.errors import Misconfigured
from watcher.settings import surroundings
from watcher.settings.reading import names, read
from watcher.settings.types import (
    HttpUrl,
    Key,
    Loopback,
    ProjectUrl,
    Seconds,
    Secret,
    SettingDoc,
    public_role_of,
)


def _default_spool() -> Path:
    # systemd's CacheDirectory= if there is one, else XDG's cache folder.
    from_systemd = os.environ.get("CACHE_DIRECTORY")
    if from_systemd:
        return Path(from_systemd)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "watcher"


class SupabaseSettings(BaseSettings):
    """The settings of the operator's commands, which use only Supabase."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    supabase_url: ProjectUrl = Field(
        validation_alias="SUPABASE_URL", description="The project's URL, https://REF.supabase.co"
    )
    supabase_key: Key = Field(
        validation_alias=AliasChoices("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY"),
        description="The secret key (sb_secret_…) or the legacy service_role key",
    )


class Services(SupabaseSettings):
    """The URLs and keys of the two services."""

    hf_token: Key = Field(
        validation_alias=AliasChoices("HF_TOKEN", "HUGGINGFACE_TOKEN"),
        description="A Hugging Face token with write access to the namespace",
    )
    hf_endpoint: HttpUrl = Field(
        "https://huggingface.co", validation_alias="HF_ENDPOINT", description="The Hub's URL"
    )


class Settings(Services):
    """The settings of the daemon. Durations are in seconds.

    Each can also be a file of that name under `$CREDENTIALS_DIRECTORY`, as systemd passes secrets; the environment wins.
    """

    hf_namespace: Annotated[
        str | None, SettingDoc(range="1 to 96 of `A-Za-z0-9._-`", default="the token's user")
    ] = Field(
        None,
        validation_alias="HF_NAMESPACE",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
        description="The user or organization that owns the repos",
    )
    instance: Annotated[str, SettingDoc(range="1 to 64 of `A-Za-z0-9._-`", default="the host's name")] = (
        Field(
            default_factory=socket.gethostname,
            validation_alias="WATCHER_INSTANCE",
            pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$",
            description="This daemon's name; unique among all daemons that share the database",
        )
    )
    spool_root: Annotated[
        Path,
        SettingDoc(
            range="a folder that this user owns", default="`~/.cache/watcher`, or systemd's cache folder"
        ),
    ] = Field(
        default_factory=_default_spool,
        validation_alias="WATCHER_SPOOL",
        description="Where images are stored between fetch and upload",
    )
    slots: Annotated[int, SettingDoc(unit="rows")] = Field(
        4,
        ge=1,
        le=32,
        validation_alias="WATCHER_SLOTS",
        description="Rows processed at the same time; one more for a user who has none running",
    )
    fetches: Annotated[int, SettingDoc(unit="images")] = Field(
        8, ge=1, le=64, validation_alias="WATCHER_FETCHES", description="Images fetched at the same time"
    )
    metadata: Literal["clean", "keep"] = Field(
        "clean",
        validation_alias="WATCHER_METADATA",
        description="clean: photos are published without what tells of place, time, camera and person; keep: as uploaded",
    )
    lease: Seconds = Field(
        20,
        ge=0.5,
        le=600,
        validation_alias="WATCHER_LEASE",
        description="How long a row is held without a renewal",
    )
    renewal: Seconds = Field(
        5,
        ge=0.1,
        le=200,
        validation_alias="WATCHER_RENEWAL",
        description="Interval between lease renewals; at most a third of the lease",
    )
    poll: Seconds = Field(
        2,
        ge=0.1,
        le=60,
        validation_alias="WATCHER_POLL",
        description="Poll interval while Realtime is down",
    )
    poll_alive: Seconds = Field(
        15,
        ge=0.1,
        le=600,
        validation_alias="WATCHER_POLL_ALIVE",
        description="Poll interval while Realtime is up",
    )
    pulse: Seconds = Field(
        60,
        ge=0.1,
        le=600,
        validation_alias="WATCHER_PULSE",
        description="Time without events after which Realtime is tested by updating the row in watcher_pulse",
    )
    pulse_answer: Seconds = Field(
        5,
        ge=0.1,
        le=60,
        validation_alias="WATCHER_PULSE_ANSWER",
        description="Time-out of that test of Realtime",
    )
    grace: Seconds = Field(
        90,
        ge=1,
        le=3600,
        validation_alias="WATCHER_GRACE",
        description="Time that running rows have to finish after SIGTERM",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="WATCHER_LOG_LEVEL", description="The lowest level that is logged"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto",
        validation_alias="WATCHER_LOG_FORMAT",
        description="auto: JSON if stderr is systemd's journal, else lines, coloured on a terminal unless NO_COLOR is set",
    )
    metrics_address: Annotated[
        Loopback | None, SettingDoc(range="a loopback address and a port", default="off")
    ] = Field(
        None,
        validation_alias="WATCHER_METRICS_ADDRESS",
        description="Where /metrics, /healthz and /readyz are served, such as 127.0.0.1:9464",
    )

    @cached_property
    def spool(self) -> Path:
        """The spool folder of this instance."""
        return self.spool_root / self.instance

    @property
    def metrics(self) -> tuple[str, int] | None:
        """Host and port of the metrics and health pages; None if they are off."""
        if self.metrics_address is None:
            return None
        host, _, port = self.metrics_address.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def secrets(self) -> list[str]:
        """The values that must never be written anywhere."""
        return [self.supabase_key.get_secret_value(), self.hf_token.get_secret_value()]


class DatabaseSettings(BaseSettings):
    """The settings of `watcher migrate`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    db_url: Secret = Field(
        validation_alias="SUPABASE_DB_URL", description="postgresql://… for the role postgres"
    )


class FrontendSettings(Services):
    """The settings with which the demo and the acceptance tests act as the frontend."""

    publishable_key: str = Field(
        validation_alias=AliasChoices("SUPABASE_PUBLISHABLE_KEY", "SUPABASE_ANON_KEY"),
        description="The key that the frontend uses",
    )


def load() -> Settings:
    """Read the settings of `watcher run`; raises Misconfigured, which lists every invalid setting."""
    settings = read(Settings)
    if settings.renewal * 3 > settings.lease:
        raise Misconfigured(
            f"WATCHER_RENEWAL is {settings.renewal:g} s: set it to at most a third of WATCHER_LEASE ({settings.lease:g} s)."
        )
    _check_key(settings)
    return settings


def load_supabase() -> SupabaseSettings:
    """Read the settings of the operator's commands; raises Misconfigured."""
    settings = read(SupabaseSettings)
    _check_key(settings)
    return settings


def _check_key(settings: SupabaseSettings) -> None:
    role = public_role_of(settings.supabase_key.get_secret_value())
    if role is not None:
        raise Misconfigured(
            f"SUPABASE_SECRET_KEY is the {role} key: set it to the secret key (sb_secret_…) from the project's "
            "settings, API keys."
        )


def load_frontend(**values: str) -> FrontendSettings:
    """Read the settings of `watcher demo`; `values` override the environment. Raises Misconfigured."""
    return read(FrontendSettings, values)


def notices() -> list[str]:
    """Return a sentence for each environment variable that has no effect, such as a misspelt setting."""
    known = [name for kind in (Settings, FrontendSettings, DatabaseSettings) for name in names(kind)]
    return list(surroundings.notices(os.environ, known))


def is_set(name: str) -> bool:
    """Whether the environment variable `name` has a value."""
    return bool(os.environ.get(name))


def environment(**more: str) -> dict[str, str]:
    """Return a copy of this process's environment, with `more` added."""
    return {**os.environ, **more}


def load_database() -> DatabaseSettings:
    """Read the settings of `watcher migrate`; raises Misconfigured."""
    return read(DatabaseSettings, online=False)
