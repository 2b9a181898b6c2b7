"""What all groups of settings share: how they are read, and bounds of their values."""

from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "BUDGET_ROUTER_"
DAY = 86_400.0
"""Longest time that a setting may name, in seconds: timers of systems refuse much longer ones."""

MOST = 2**31 - 1
"""Largest number that gRPC and Redis take."""


class Group(BaseSettings):
    """Settings of one subject, read from BUDGET_ROUTER_* variables; frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", allow_inf_nan=False)
