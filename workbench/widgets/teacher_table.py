"""The table under the teacher picker: loss, entropy, distance to the student, surprise token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from workbench.metrics.distributions import entropy, kl_divergence, softmax, sorted_distance
from workbench.metrics.reading import Reading, same_vocabulary

HEADS = (
    "model",
    "tokens known",
    "loss, nats per byte",
    "entropy here, nats",
    "to the student",
    "surprise at each token",
)
FULL_SHADE = 4.0  # nats per byte that are shaded most; letters drawn blindly would cost about 4


def probabilities(reading: Reading, upto: int, temperature: float) -> np.ndarray:
    """What a model expects after the first ``upto`` characters, ``[vocab]``, softened by ``temperature``."""
    return softmax(reading.logits[reading.place(upto)], temperature=temperature)


def comparison_table(
    names: Sequence[str],
    readings: Mapping[str, Reading],
    problems: Mapping[str, str],
    *,
    student: str,
    upto: int,
    temperature: float,
) -> str:
    """HTML with a row per model; where vocabularies differ, ULD stands in for KL and a note says so.

    Args:
        names: the rows, in order; each has a reading or a problem.
        student: the model that distances are taken to; KL(model || student) in nats.
        upto: characters of the text read so far.
    """
    softened = {name: probabilities(reading, upto, temperature) for name, reading in readings.items()}
    rows = []
    for name in names:
        if name in problems:
            rows.append(_row("td", [escape(name), escape(problems[name])], stretch=len(HEADS) - 1))
            continue
        cells = [
            f"<span style='white-space:nowrap'>{escape(name)}</span>",
            f"{softened[name].size:,}",
            f"{readings[name].nats_per_byte:.3f}",
            f"{entropy(softened[name]):.3f}",
            _distance(name, student, readings, softened),
            _surprise(readings[name], upto),
        ]
        rows.append(_row("td", cells))
    notes = "".join(f"<p style='margin:6px 10px'>{note}</p>" for note in _notes(readings, student))
    style = "border-collapse:collapse;font-variant-numeric:tabular-nums"
    return f"<table style='{style}'>{_row('th', HEADS)}{''.join(rows)}</table>{notes}"


def _distance(name: str, student: str, readings: Mapping[str, Reading], softened: Mapping[str, np.ndarray]) -> str:
    if name == student:
        return "(the student)"
    if student not in readings:
        return "–"
    if same_vocabulary(readings[name], readings[student]):
        return f"KL {kl_divergence(softened[name], softened[student]):.3f}"
    return f"ULD {sorted_distance(softened[name], softened[student]):.3f}"


def _notes(readings: Mapping[str, Reading], student: str) -> list[str]:
    notes = []
    if student in readings:
        strangers = [name for name, reading in readings.items() if not same_vocabulary(reading, readings[student])]
        if strangers:
            notes.append(
                f"{escape(' and '.join(strangers))} and {escape(student)} do not share a vocabulary, so there is no "
                "KL between them. ULD stands in: the sum of differences of the sorted probabilities, 0 for equal "
                "shapes, at most 2."
            )
    for name, reading in readings.items():
        if reading.start:
            notes.append(
                f"{escape(name)} sees {len(reading.token_ids)} tokens: "
                f"the first {reading.start} characters were left out."
            )
    return notes


def _surprise(reading: Reading, upto: int) -> str:
    """The sentence, each token shaded by its surprise per byte; what follows the chosen place is pale."""
    spans, end = [], reading.start
    for piece, nats in reading.pieces():
        end += len(piece)
        unknown = np.isnan(nats)
        per_byte = 0.0 if unknown else nats / max(1, len(piece.encode()))
        title = "nothing stands before it" if unknown else f"{nats:.2f} nats"
        shade = f"background:rgba(213,94,0,{min(per_byte / FULL_SHADE, 1) * 0.75:.2f})"
        pale = "" if end <= upto else ";opacity:.45"
        style = f"{shade}{pale};border-radius:2px"
        # A line may break before a blank only, else words of a vocabulary of characters fall apart.
        spans.append("<wbr>" if piece.startswith(" ") else "")
        spans.append(f"<span title='{title}' style='{style}'>{escape(piece).replace(' ', '&nbsp;')}</span>")
    return "<span style='font-family:monospace'>" + "".join(spans) + "</span>"


def _row(tag: str, cells: Sequence[str], *, stretch: int = 1) -> str:
    """A table row; its last cell is ``stretch`` columns wide."""
    style = "padding:3px 10px;text-align:left;vertical-align:top;line-height:1.5"
    spans = [f" colspan='{stretch}'" if place == len(cells) - 1 and stretch > 1 else "" for place in range(len(cells))]
    inside = "".join(f"<{tag} style='{style}'{span}>{cell}</{tag}>" for cell, span in zip(cells, spans, strict=True))
    return f"<tr>{inside}</tr>"
