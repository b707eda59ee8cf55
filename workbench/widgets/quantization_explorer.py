"""Quantisation under the hand: one layer on its grid, all layers' sensitivities, and a mixed recipe made from them.

Open it in one line: ``QuantizationExplorer()`` on a small model, or
``QuantizationExplorer(*load_pretrained("smollm2-135m"))`` on any causal language model and its tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import check_choice
from workbench.widgets.live import LiveBox
from workbench.widgets.quantization_layers import QuantizationBench
from workbench.widgets.quantization_recipe import RecipeBuilder
from workbench.widgets.quantization_view import LayerView

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from workbench.quantizers.recipes import Recipe


class QuantizationExplorer(LiveBox):
    """Choose a layer, bits, group, scheme and method; see its grid and errors; build a recipe and take it along.

    Read the layer's state back from ``view`` (``settings``, ``report``), the recipe's from ``builder`` (``choice``,
    ``prediction``, ``measured``, ``sensitivity``) and the recipe itself from ``recipe``.

    Args:
        model: a causal language model, read only; None trains a small one here (seconds, once).
        calibration: its tokenizer (four windows of held-out Shakespeare are read), or token ids
            ``[windows, time + 1]``. Output errors and losses are those on this text.
        sensitivity: of :func:`workbench.quantizers.sensitivity.layer_sensitivity` with bits as recipes; None
            estimates it, at once for a small model and at the press of a button for others.
        layer: that is shown first; None, the first.

    Raises:
        TypeError: a model without tokenizer or ids.
        UnknownName: a layer that the model does not have ("did you mean").
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        calibration: PreTrainedTokenizerBase | Tensor | None = None,
        *,
        sensitivity: pd.DataFrame | None = None,
        layer: str | None = None,
    ):
        bench = QuantizationBench(model, calibration)
        if layer is not None:
            check_choice("layer", layer, bench.layers)
        self.view = LayerView(bench, layer)
        self.builder = RecipeBuilder(bench, sensitivity)
        super().__init__([*self.view.parts, *self.builder.parts])

    @property
    def recipe(self) -> Recipe:
        """The recipe on the screen, as ``quantize_model`` takes it; ``ValueError`` before anything was estimated."""
        return self.builder.recipe
