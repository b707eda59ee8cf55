"""The theme: told apart by the colour-blind and in grey, on both kinds of page."""

import itertools

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from workbench.plots.theme import DASHES, INK, PALETTE, SYMBOLS, TEMPLATE, faded, look

# Machado, Oliveira & Fernandes 2009, table 1, severity 1.0; they act on linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503]])


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(np.maximum(TO_XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883], 0.0089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(first: str, second: str) -> float:
    light, dark = sorted((float(TO_XYZ[1] @ linear(colour)) for colour in (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("vision", VISION)
def test_any_two_colours_are_far_apart_for_every_kind_of_sight(vision):
    seen = [lab(np.asarray(VISION[vision]) @ linear(colour)) for colour in PALETTE]
    # A difference of 2.3 is just noticeable (Mahy et al. 1994).
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 4 * 2.3


def test_colours_stand_out_on_white_and_on_dark_and_greys_can_be_read_on_both():
    assert all(contrast(colour, page) > 2.5 for colour in PALETTE for page in ("#fcfcfa", "#15171a"))
    assert all(contrast(INK, page) > 4 for page in ("#fcfcfa", "#15171a"))


def test_groups_differ_in_marker_or_dash_so_that_grey_print_is_enough():
    looks = [(look(index).dash, look(index).symbol) for index in range(len(PALETTE))]
    assert len(set(looks)) == len(looks) == len(DASHES) == len(SYMBOLS)


def test_the_eighth_group_does_not_look_like_the_first():
    assert len({look(index) for index in range(2 * len(PALETTE))}) == 2 * len(PALETTE)


def test_a_plain_figure_takes_the_template_and_is_clear_of_any_background():
    layout = go.Figure(go.Scatter(y=[1, 2])).layout.template.layout
    assert pio.templates.default == TEMPLATE
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0, 0, 0, 0)"
    assert layout.colorway == PALETTE


def test_a_faded_colour_keeps_its_channels():
    assert faded("#0072B2", 0.2) == "rgba(0, 114, 178, 0.2)"
