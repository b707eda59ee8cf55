"""The table of the bench for teachers, for reading and for taking away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from workbench.errors import check_choice
from workbench.files import atomic_path
from workbench.metrics.uncertainty import paired_difference

FORMATS = {".csv": "CSV", ".parquet": "Parquet", ".tex": "LaTeX", ".md": "Markdown"}
KEYS = ["vocabulary", "teacher", "loss"]
COLUMNS = [
    "teacher", "teacher_parameters", "teacher_nats", "loss", "nats", "error", "n", "below_no_teacher", "low", "high",
    "accuracy", "kl_to_teacher", "seconds", "tokens_per_second", "student", "vocabulary",
]  # fmt: skip


def bench_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per teacher and loss, means over seeds, the best first.

    Args:
        rows: one finished student a row.

    Returns:
        ``nats`` per byte of held-out text with its standard ``error`` over ``n`` seeds; ``below_no_teacher`` is how
        much lower that is than the student's with cross-entropy alone on the same seeds, with its 95% t interval
        ``low`` to ``high``; ``kl_to_teacher`` in nats per token; ``seconds`` of training.
    """
    if rows.empty:
        return pd.DataFrame(columns=COLUMNS)
    found = []
    for (vocabulary, teacher, loss), some in rows.groupby(KEYS, sort=False, dropna=False):
        means = some.mean(numeric_only=True)
        row = {"vocabulary": vocabulary, "teacher": teacher, "loss": loss, "student": some["student"].iloc[0]}
        row |= {name: means[name] for name in COLUMNS if name in means.index and name not in row}
        row |= {"error": some["nats"].sem(), "n": len(some)}
        alone = rows[(rows["vocabulary"] == vocabulary) & (rows["loss"] == "cross_entropy")]
        shared = set(alone["seed"]) & set(some["seed"])
        if loss != "cross_entropy" and shared:
            effect = paired_difference(
                pd.concat([alone, some]), "cross_entropy", loss, value="nats", by="loss", on="seed"
            )
            row |= {"below_no_teacher": effect.estimate, "low": effect.low, "high": effect.high}
        found.append(row)
    table = pd.DataFrame(found).reindex(columns=COLUMNS)
    return table.sort_values("nats", ignore_index=True)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text with units, for eyes."""
    return pd.DataFrame(
        {
            "teacher": table["teacher"],
            "its parameters": [_number(value, ",.0f") for value in table["teacher_parameters"]],
            "its nats per byte": [_number(value, ".3f") for value in table["teacher_nats"]],
            "loss": table["loss"],
            "student's nats per byte": [
                _number(mean, ".4f") + (f" ± {error:.4f}" if error == error else "")
                for mean, error in zip(table["nats"], table["error"], strict=True)
            ],
            "seeds": table["n"],
            "below no teacher [95%]": [
                _interval(*values)
                for values in zip(table["below_no_teacher"], table["low"], table["high"], strict=True)
            ],
            "KL to teacher, nats": [_number(value, ".3f") for value in table["kl_to_teacher"]],
            "tokens/s": [_number(value, ",.0f") for value in table["tokens_per_second"]],
            "seconds": [_number(value, ".1f") for value in table["seconds"]],
        }
    )


def export_table(table: pd.DataFrame, path: Path | str) -> Path:
    """Write ``table`` in the format that the file's ending names; whole or not at all.

    Raises:
        ValueError: nothing to write.
        UnknownName: an ending that is none of ``.csv``, ``.parquet``, ``.tex``, ``.md`` ("did you mean").
        AssetError: the folder cannot be written.
    """
    if table.empty:
        raise ValueError("there is nothing to export yet: no run of this selection has finished.")
    path = Path(path).expanduser()
    ending = check_choice("the file's ending", path.suffix, FORMATS)
    with atomic_path(path) as temporary:
        if ending == ".parquet":
            table.to_parquet(temporary)
        elif ending == ".csv":
            table.to_csv(temporary, index=False)
        else:
            text = _latex(shown(table)) if ending == ".tex" else _markdown(shown(table))
            temporary.write_text(text, encoding="utf-8")
    return path


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _latex(table: pd.DataFrame) -> str:
    """``tabular`` with booktabs' rules; nothing but the standard letters of LaTeX is asked of the fonts."""
    rows = [_latex_row(row) for row in table.astype(str).to_numpy().tolist()]
    numbers = [name not in ("teacher", "loss") for name in table.columns]
    columns = "".join("r" if number else "l" for number in numbers)
    head = _latex_row(list(table.columns))
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--"} | {mark: f"\\{mark}" for mark in "&%$#_{}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return " & ".join("".join(special.get(letter, letter) for letter in cell) for cell in cells) + r" \\"


def _number(value: float, form: str) -> str:
    return format(value, form) if value == value else "–"


def _interval(estimate: float, low: float, high: float) -> str:
    if estimate != estimate:
        return "–"
    return f"{estimate:+.4f}" + (f" [{low:+.4f}, {high:+.4f}]" if low == low else "")
