"""What ours shall reach beside each peer, and whether it did."""

from __future__ import annotations

import pandas as pd

from workbench.bench.peers.eager import WITHOUT_ENTROPY
from workbench.bench.peers.implementations import Shape

MEMORY_MIB = 250.0  # beyond the inputs, of every loss with its last layers
NARROW = 0.6  # of float32's CPU time when products are bfloat16
NARROW_LOSS = 1e-3  # nats
GROWTH_SLACK_MIB = 4.0  # index arrays, and what an allocator rounds up
CPU = {  # (section, loss, implementation): ours in parts of its CPU time
    ("linear", "forward_kl", "naive"): 0.8,
    ("linear", "generalized_jsd", "trl"): 0.45,
    ("linear", "generalized_jsd", "liger"): 0.6,  # at its best chunk size
}
LOGITS_CPU, LOGITS_MIB = 1.0, 0.6
DIGITS = {"cpu_seconds": 4, "wall_seconds": 4, "peak_mib": 1, "cpu_ratio": 2, "mib_ratio": 2}
ORDER = [
    "section", "loss_name", "implementation", "tokens", "threads", "cpu_seconds", "wall_seconds", "peak_mib",
    "cpu_ratio", "mib_ratio", "loss", "gradient", "agree", "goal", "reached",
]  # fmt: skip


def with_goals(table: pd.DataFrame, shape: Shape, *, full: bool) -> pd.DataFrame:
    """The measured rows with ours in parts of each, agreement, goals (of the full shape only) and verdicts."""
    groups = ["section", "loss_name", "tokens", "threads"]
    ours = table[table.implementation == "ours"].set_index(groups)
    rows = []
    for _, row in table.iterrows():
        place = tuple(row[groups])
        own = ours.loc[place] if place in ours.index else None
        goal, reached = _goal(row, own, table, shape) if full else ("", None)
        ratios = {"cpu_ratio": None, "mib_ratio": None, "agree": None}
        if own is not None and row.implementation != "ours":
            ratios = {
                "cpu_ratio": own.cpu_seconds / row.cpu_seconds,
                "mib_ratio": own.peak_mib / row.peak_mib,
                "agree": _agree(row, own),
            }
        rows.append({**row, **ratios, "goal": goal, "reached": reached})
    table = pd.DataFrame(rows)[ORDER].sort_values(groups, kind="stable", ignore_index=True)
    return table.astype({"cpu_ratio": float, "mib_ratio": float}).round(DIGITS)


def _agree(row: pd.Series, own: pd.Series) -> bool:
    """Same loss and same size of gradient; of a cross-entropy form the gradient alone."""
    tolerance = 2e-2 if row.implementation.endswith("bf16") else 1e-4
    same = abs(row.gradient - own.gradient) <= tolerance * own.gradient
    if row.implementation == "eager" and row.loss_name in WITHOUT_ENTROPY:
        return bool(same)
    return bool(same and abs(row.loss - own.loss) <= max(NARROW_LOSS if tolerance > 1e-3 else 0.0, 1e-4 * own.loss))


def _goal(row: pd.Series, own: pd.Series | None, table: pd.DataFrame, shape: Shape) -> tuple[str, bool | None]:
    who, group = row.implementation, (table.section == row.section) & (table.loss_name == row.loss_name)
    if row.section == "growth":
        before = table[(table.section == "linear") & (table.loss_name == row.loss_name)
                       & (table.implementation == "ours") & (table.threads == row.threads)]  # fmt: skip
        allowed = 4 * (row.tokens - shape.tokens) * shape.width / 2**20 + GROWTH_SLACK_MIB
        grown = row.peak_mib - before.peak_mib.min()
        return f"grows by <= {allowed:.1f} MiB (grew {grown:.1f})", bool(grown <= allowed)
    if own is None:
        return "", None
    if row.section == "linear" and who == "ours":
        return f"<= {MEMORY_MIB:.0f} MiB", bool(row.peak_mib <= MEMORY_MIB)
    if who == "ours bf16":
        saved = row.cpu_seconds <= NARROW * own.cpu_seconds
        near = abs(row.loss - own.loss) <= NARROW_LOSS
        goal = f"<= {NARROW}x cpu of float32, loss within {NARROW_LOSS:g}, <= {MEMORY_MIB:.0f} MiB"
        return goal, bool(saved and near and row.peak_mib <= MEMORY_MIB)
    if row.section == "logits" and who in ("trl", "eager"):
        reached = own.cpu_seconds <= LOGITS_CPU * row.cpu_seconds and own.peak_mib <= LOGITS_MIB * row.peak_mib
        return f"ours <= {LOGITS_CPU}x cpu, {LOGITS_MIB}x MiB", bool(reached)
    limit = CPU.get((row.section, row.loss_name, who.split()[0]))
    if limit is None or who == "trl chunked":
        return "", None
    rivals = table[group & table.implementation.str.startswith("liger") & (table.threads == row.threads)]
    if who.startswith("liger") and row.cpu_seconds > rivals.cpu_seconds.min():
        return "", None  # the goal is about its best chunk size
    return f"ours <= {limit}x cpu", bool(own.cpu_seconds <= limit * row.cpu_seconds)
