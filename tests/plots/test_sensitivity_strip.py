"""The strip of sensitivities shows what was chosen for every layer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from workbench.errors import UnknownName
from workbench.plots.sensitivity import sensitivity_strip, shades

NATS = {2: 1e-2, 4: 1e-4, 32: 0.0}


def table(blocks: int = 2, sign: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"layer": f"layers.{block}.{kind}", "bits": bits, "added_nats": sign * (1 + block) * nats,
             "standard_error": nats / 10}
            for block in range(blocks) for kind in ("up", "down") for bits, nats in NATS.items()
        ]
    )  # fmt: skip


def test_a_bar_is_what_the_layer_adds_at_its_own_bits():
    choice = {"layers.0.up": 2, "layers.0.down": 4, "layers.1.up": 4, "layers.1.down": 32}
    bars, strip, *_ = sensitivity_strip(table(), choice).data
    np.testing.assert_allclose(bars.y, [1e-2, 1e-4, 2e-4, np.nan])
    np.testing.assert_allclose(bars.error_y.array, [1e-3, 1e-5, 1e-5, 0])
    assert list(strip.text[0]) == ["2", "4", "4", "f"]
    assert list(strip.z[0]) == [0, 1, 1, 2]
    two, four, whole = shades([2, 4, 32])
    assert list(bars.marker.color) == [two, four, four, whole]


def test_shades_rise_in_lightness_with_bits_so_that_grey_keeps_their_order():
    def grey(colour: str) -> float:
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    lightness = [grey(shade) for shade in shades([2, 3, 4, 8, 32])]
    assert all(later > earlier + 20 for earlier, later in pairwise(lightness))


def test_blocks_are_numbered_below_their_first_layer():
    axis = sensitivity_strip(table()).layout.xaxis2
    assert list(axis.ticktext) == ["0", "1"]
    assert list(axis.tickvals) == [0, 2]


def test_what_seems_to_lower_the_loss_is_hatched_and_explained():
    figure = sensitivity_strip(table(sign=-1), dict.fromkeys(table()["layer"], 2))
    assert set(figure.data[0].marker.pattern.shape) == {"/"}
    assert all(height > 0 for height in figure.data[0].y)
    assert "seems to lower it" in [trace.name for trace in figure.data]
    assert "seems to lower it" not in [trace.name for trace in sensitivity_strip(table()).data]


def test_bits_are_written_in_cells_only_where_there_is_room():
    assert sensitivity_strip(table(4)).data[1].texttemplate == "%{text}"
    assert sensitivity_strip(table(40)).data[1].texttemplate == ""


def test_every_bits_has_a_name_in_the_legend():
    names = [trace.name for trace in sensitivity_strip(table()).data[2:]]
    assert names == ["2 bits", "4 bits", "float (32 bits)"]


def test_a_table_without_nats_is_refused():
    with pytest.raises(UnknownName, match="added_nats"):
        sensitivity_strip(table().drop(columns="added_nats"))
    with pytest.raises(ValueError, match="no rows"):
        sensitivity_strip(table().iloc[:0])
