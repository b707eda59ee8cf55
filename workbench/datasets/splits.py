"""Parts of a labelled set with every class in its share, and labels that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.errors import check_between


def stratified_parts(labels: np.ndarray, sizes: Sequence[int], *, seed: int) -> list[np.ndarray]:
    """Indices of disjoint parts of the given ``sizes``, each with the classes in their share (to one sample).

    Args:
        labels: ``[samples]`` class indices.
        sizes: samples of each part; together at most all.
        seed: of the draw and of the order within a part.

    Raises:
        ValueError: sizes that are below 1 or add up to more than there is.
    """
    labels = np.asarray(labels)
    if any(size < 1 for size in sizes) or sum(sizes) > len(labels):
        raise ValueError(f"sizes={tuple(sizes)} must be at least 1 and add up to at most {len(labels)} samples.")
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    # Each sample's place within its class, as a share: sorted by it, every stretch has the classes in their share.
    place = np.empty(len(labels))
    for label in np.unique(labels):
        of_class = shuffled[labels[shuffled] == label]
        place[of_class] = (np.arange(len(of_class)) + random.random()) / len(of_class)
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(sizes)
    return [random.permutation(order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def flip_labels(labels: np.ndarray, share: float, *, classes: int, seed: int) -> np.ndarray:
    """``labels`` with ``share`` of them (rounded) replaced by another class, drawn evenly from the wrong ones.

    Raises:
        ValueError: a share outside 0 to 1, or a single class.
    """
    check_between(0, 1, share=share)
    if classes < 2:
        raise ValueError(f"classes={classes} leaves no wrong class to put in a label's place.")
    random = np.random.default_rng(seed)
    flipped = np.array(labels, dtype=np.int64)
    chosen = random.choice(len(flipped), size=round(share * len(flipped)), replace=False)
    flipped[chosen] = (flipped[chosen] + random.integers(1, classes, size=len(chosen))) % classes
    return flipped
