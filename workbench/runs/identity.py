"""What makes two runs the same run: the notebook's cells, the parameters, the code and the published numbers."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from workbench.runs.notebooks import Notebook

PACKAGE = Path(__file__).resolve().parent.parent


def identity(notebook: Notebook, parameters: dict[str, Any], *, code: str | None = None) -> str:
    """16 hexadecimal digits; outputs that somebody stored in the notebook count nothing."""
    cells = [(cell["cell_type"], cell["source"], cell.get("metadata", {}).get("tags", [])) for cell in notebook.cells]
    told = json.dumps([cells, dict(sorted(parameters.items())), code or code_hash()], ensure_ascii=False)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


@cache
def code_hash(package: Path = PACKAGE) -> str:
    """SHA-256 over the package's modules and the published numbers: an uncommitted edit counts, a README not."""
    files = {path for path in package.rglob("*.py") if "__pycache__" not in path.parts}
    files |= set((package / "published").rglob("*.csv"))
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
