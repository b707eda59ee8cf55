"""What all tests share: no progress bars, one torch thread, and the system's Chromium where one is asked for."""

from __future__ import annotations

import os

import pytest

# Before torch or tqdm is imported by any test; kernels that tests start inherit both.
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium; the test skips where there is none, unless ``WORKBENCH_REQUIRE_BROWSER`` is set."""
    from tests.browser.chromium import launched, why_not

    if reason := why_not():
        if os.environ.get("WORKBENCH_REQUIRE_BROWSER"):
            pytest.fail(f"WORKBENCH_REQUIRE_BROWSER is set, but {reason}")
        pytest.skip(reason)
    with launched() as browser:
        yield browser
