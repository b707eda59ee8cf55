"""Where pip would look for packages, and how it would connect: its configuration files and ``PIP_*`` variables."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass

from pypi_simple import PYPI_SIMPLE_ENDPOINT

DEFAULT_INDEX = PYPI_SIMPLE_ENDPOINT.rstrip("/")  # what pip takes when nothing is set


@dataclass(frozen=True)
class PipSettings:
    """What matters for a download."""

    indexes: tuple[str, ...] = (DEFAULT_INDEX,)  # addresses of simple indexes, the main one first
    find_links: tuple[str, ...] = ()  # folders, files or pages that list archives
    certificate: str | None = None  # bundle of certificate authorities
    client_certificate: str | None = None
    trusted_hosts: tuple[str, ...] = ()  # host or host:port whose certificate is not checked
    proxy: str | None = None
    timeout: float = 15.0  # seconds of silence


def read_pip_settings() -> PipSettings:
    """The settings of the pip that belongs to this interpreter, else those of the ``PIP_*`` variables alone."""
    return settings_from({**_from_files(), **_from_environment()})


def settings_from(values: dict[str, str]) -> PipSettings:
    """Settings from option names of pip without dashes in front, such as ``extra-index-url``."""
    indexes = () if _true(values.get("no-index")) else (values.get("index-url") or DEFAULT_INDEX,)
    if indexes:
        indexes += tuple(values.get("extra-index-url", "").split())
    try:
        timeout = float(values.get("timeout") or values.get("default-timeout") or PipSettings.timeout)
    except ValueError:
        timeout = PipSettings.timeout
    return PipSettings(
        indexes=indexes,
        find_links=tuple(values.get("find-links", "").split()),
        certificate=values.get("cert") or None,
        client_certificate=values.get("client-cert") or None,
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        proxy=values.get("proxy") or None,
        timeout=timeout,
    )


def _from_files() -> dict[str, str]:
    # pip knows best where its files are; it is asked in a process of its own, as it has no interface for this.
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}  # no pip here, as in an environment made by another installer
    return parse_config_list(answer)


def parse_config_list(answer: str) -> dict[str, str]:
    """Option -> value out of ``pip config list``; ``download`` wins over ``global``, as for ``pip download``."""
    found: dict[str, dict[str, str]] = {"global": {}, "download": {}}
    for line in answer.splitlines():
        name, separator, value = line.partition("=")
        section, _, option = name.partition(".")
        if separator and section in found:
            try:
                found[section][option] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    return {**found["global"], **found["download"]}


def _from_environment() -> dict[str, str]:
    return {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith("PIP_") and value
    }


def _true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "yes", "on", "y", "t")
