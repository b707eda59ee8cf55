"""Notebooks of a minute's work in small: real digits, a real classifier, real seeds, run by the real runner."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = """profile: str = "quick"  # size of the run
seeds: list = None  # one split each, the spread is the error bar"""

LEARN = """import numpy as np, pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.model_selection import train_test_split
digits = load_digits()
models = {"nearest neighbour": KNeighborsClassifier(1), "ridge": RidgeClassifier()}
models["five neighbours"] = KNeighborsClassifier(5)
rows = []
for seed in seeds or range(5):
    train, test, labels, truth = train_test_split(digits.data, digits.target, test_size=500, random_state=seed)
    for images in (20, 60, 200, 600):
        for name, model in models.items():
            right = model.fit(train[:images], labels[:images]).score(test, truth)
            rows.append({"model": name, "images": images, "seed": seed, "accuracy": right})
rows = pd.DataFrame(rows)
rows.head()"""

PUBLISHED = """published = pd.DataFrame({
    "model": ["nearest neighbour", "ridge", "ridge"], "images": [600, 600, 200],
    "published": [0.95, 0.93, 0.87], "status": ["read", "read", "recalled"],
    "source": "table 1", "measure": "accuracy"})"""

FIGURE = """from workbench.plots import with_errors
with_errors(rows, x="images", y="accuracy", group="model", published=published, log_x=True,
            labels={"images": "training images", "accuracy": "accuracy on 500 digits"})"""

CURVES = """from workbench.plots import curves
error = rows.assign(error=1 - rows["accuracy"])
curves(error, x="images", y="error", group="model", log_x=True, log_y=True, band="range",
       labels={"images": "training images", "error": "share of digits misread"}, title="The misread fall as a power")"""

RESULT = """import sys
from workbench.result import Claim, Result
from workbench.metrics.uncertainty import paired_difference
from workbench.plots.tables import beside_published
many, few = rows[rows["images"] == 600], rows[rows["images"] == 20]
gain = dict(value="accuracy", by="model")
claims = [
    Claim("With 600 images the nearest neighbour reads better than a linear classifier",
          paired_difference(many, "nearest neighbour", "ridge", **gain),
          above=0.0, gating=True, published=0.02, source="table 1", published_status="recalled"),
    Claim("Five neighbours read better than one with 20 images",
          paired_difference(few, "five neighbours", "nearest neighbour", **gain), above=0.0, source="figure 2"),
    Claim("With 20 images the linear classifier stays within two points of the nearest neighbour",
          paired_difference(few, "ridge", "nearest neighbour", **gain), above=-0.02, below=0.02),
]
print("a warning in the log", file=sys.stderr)
result = Result("few_digits", {"profile": profile}, rows, claims=claims, published=published)
beside_published(result.table(), caption="Accuracy over five splits.")"""

INTRODUCTION = r"""# How few digits are enough?

A *classifier* sees $n$ images; its error falls as $\varepsilon(n) \approx a\,n^{-b}$.
See [the other one](breaks_down.ipynb) and [nothing](absent.ipynb)."""

LEARNING = r"""## Learning

Ridge regression minimises

$$\sum_{i=1}^{n} \left\| y_i - W x_i \right\|^2 + \lambda \|W\|^2_F .$$"""

VERDICTS = """from workbench.plots import verdicts
verdicts(pd.DataFrame([claim.as_dict() for claim in claims]))"""

MISTAKE = """from workbench.errors import check_choice
check_choice("loss", "reverse_lk", ["reverse_kl", "forward_kl"])"""

FEW_DIGITS = [
    new_markdown_cell(INTRODUCTION),
    new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
    new_markdown_cell(LEARNING),
    new_code_cell(LEARN),
    new_code_cell(PUBLISHED),
    new_code_cell(FIGURE, metadata={"tags": ["card"]}),
    new_markdown_cell("## The law"),
    new_code_cell(CURVES),
    new_markdown_cell("## What the run shows\n\n- ridge cannot follow\n- neighbours can"),
    new_code_cell(RESULT),
    new_code_cell(VERDICTS),
    new_code_cell("from workbench.plots import tables\nresult.save()\ntables.claims(result.check())"),
    new_markdown_cell("## Play"),
    new_code_cell("import ipywidgets\nipywidgets.IntSlider(7, description='images')"),
]

BREAKS_DOWN = [
    new_markdown_cell("# A run that breaks down"),
    new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
    new_code_cell("print('so far so good')"),
    new_code_cell(MISTAKE),
    new_code_cell("print('never reached')"),
]

MODULE = '''"""Neighbours need fewer digits than lines do.

Paper: Nobody & Somebody 2026, "How few digits", table 1.
"""
'''


def write_notebooks(folder: Path) -> None:
    """Both notebooks, and beside them an experiment module that makes the first one a paper."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "experiments").mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name, cells in (("few_digits", FEW_DIGITS), ("breaks_down", BREAKS_DOWN)):
        nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "notebooks" / f"{name}.ipynb")
    (folder / "experiments" / "few_digits.py").write_text(MODULE, encoding="utf-8")
