"""The gallery's page templates."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from workbench.runs.gallery.words import SIGNS

FOLDER = Path(__file__).with_name("html")


@cache
def environment() -> jinja2.Environment:
    """Templates of the folder ``html``; a name that a template misspells is an error, not a gap in the page."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["signs"] = SIGNS
    return found


def render(name: str, /, **values: Any) -> str:
    """The template ``name`` filled with ``values``."""
    return environment().get_template(name).render(**values)
