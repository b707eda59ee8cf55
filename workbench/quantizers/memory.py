"""Freed memory given back to the system, where the C library would keep it."""

from __future__ import annotations

import ctypes
import sys


def give_back_memory() -> None:
    """Return what this process has freed; does nothing where the C library is not glibc.

    glibc keeps freed blocks of up to 32 MB for later, among blocks that live on. While a model is quantised in place
    the float weights of every layer are freed and smaller ones kept, so that the process would seem to grow.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
