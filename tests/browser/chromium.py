"""The system's Chromium, headless, driven by playwright."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# As root, as in a container, it starts only without its sandbox; /dev/shm is often too small there.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def find_chromium() -> str | None:
    """The path of an installed Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def why_not() -> str | None:
    """The sentence that says why no browser can be driven here, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "the package playwright is not installed: it is in the extra `test`."
    if find_chromium() is None:
        return f"no Chromium is installed here (none of {', '.join(NAMES)} is on the path)."
    return None


@contextmanager
def launched() -> Iterator:
    """A playwright ``Browser``; open pages with ``browser.new_page(...)`` or ``new_context(...)``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
