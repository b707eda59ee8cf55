"""The matrix nuclear norm under the hand: a text, what is done to it, how much of it, which layer, how many columns."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go

from workbench.datasets.text_operations import OPERATIONS, operate
from workbench.metrics.text_compression import spectra
from workbench.metrics.text_metrics import describe_hidden, read_batch
from workbench.plots.compression import norm_spectrum, spectrum_traces
from workbench.plots.theme import INK, PALETTE
from workbench.widgets.live import LiveBox, live

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KEPT = 8  # readings that are remembered: a text's states of all layers take some megabytes
TICKS = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 3)]
LEAST_TOKENS = 2  # one token has no direction


class NuclearNormExplorer(LiveBox):
    """Type or choose a text, reorder it, drag layer, length and D; see the spectrum, all layers, and the numbers.

    The model reads a text once for each operation; moving layer, length or D only measures again. Read the state back
    from ``text``, ``operation``, ``layer``, ``length``, ``top`` and ``numbers`` (a dict), what is drawn from
    ``layers`` (a row per layer), the sentence from ``sentence``.

    Args:
        model, tokenizer: a causal language model of transformers.
        texts: to begin with; foreign words are drawn from them.
        seed: of the operations' draws.

    Raises:
        ValueError: no text, or a first text of fewer than two tokens.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, seed: int = 0
    ):
        if not texts:
            raise ValueError("texts is empty: give at least one text to begin with.")
        self._model, self._tokenizer, self._texts, self._seed = model, tokenizer, list(texts), seed
        self._read: dict[str, list[Tensor]] = {}
        last = model.config.num_hidden_layers
        wide = widgets.Layout(width="100%", max_width="640px")
        style = {"description_width": "80px"}
        self.choice = widgets.Dropdown(
            options=[(f"{place + 1}: {text[:60]}", place) for place, text in enumerate(self._texts)],
            description="Text", layout=wide, style=style,
        )  # fmt: skip
        self.text = widgets.Textarea(
            self._texts[0], continuous_update=False, rows=4, layout=wide, style=style, description="Words"
        )
        self.operation = widgets.Dropdown(options=OPERATIONS, description="Operation", style=style)
        slider = {"continuous_update": False, "layout": wide, "style": style}
        self.layer = widgets.IntSlider(last, min=0, max=last, description="Layer", **slider)
        self.length = widgets.IntSlider(
            LEAST_TOKENS, min=LEAST_TOKENS, max=LEAST_TOKENS, description="Tokens", **slider
        )
        self.top = widgets.IntSlider(1, min=1, max=1, description="D", **slider)
        self.sentence, self.numbers, self.layers = widgets.HTML(), {}, pd.DataFrame()
        self._moving = True
        self._take_text()
        self.spectrum = live(norm_spectrum(spectra(self.hidden), top=self.top.value))
        # Fixed for all layers, whose norms differ by powers of ten.
        self.spectrum.update_yaxes(tickvals=TICKS, ticktext=[f"{tick:g}" for tick in TICKS])
        self.by_layer = live(_layers_figure(last))
        self._moving = False
        self._redraw()
        self.choice.observe(self._choose, names="value")
        for control in (self.text, self.operation):
            control.observe(self._reread, names="value")
        self.length.observe(self._resize, names="value")
        for control in (self.layer, self.top):
            control.observe(self._redraw, names="value")
        controls = [self.choice, self.text, self.operation, self.layer, self.length, self.top]
        super().__init__([*controls, self.sentence, self.spectrum, self.by_layer])

    @property
    def hidden(self) -> Tensor:
        """The states ``[tokens, width]`` of the chosen layer and length."""
        return self._states()[self.layer.value][: self.length.value]

    def _states(self) -> list[Tensor]:
        """Of every layer ``[tokens, width]``; the model reads what it has not read."""
        words = operate(self.text.value, self.operation.value, seed=self._seed, others=self._texts)
        if words not in self._read:
            ids = self._tokenizer(" " + words)["input_ids"]
            if len(ids) < LEAST_TOKENS:
                raise ValueError(f"a text of {len(ids)} tokens has no direction: give at least {LEAST_TOKENS}.")
            last = self._model.config.num_hidden_layers
            states, _ = read_batch(self._model, [ids], range(last + 1))
            while len(self._read) >= KEPT:
                self._read.pop(next(iter(self._read)))
            self._read[words] = [states[layer][0] for layer in range(last + 1)]
        return self._read[words]

    def _choose(self, change: dict) -> None:
        self.text.value = self._texts[change["new"]]

    def _reread(self, _change: object = None) -> None:
        self._moving = True  # the sliders that follow must not redraw one by one
        try:
            self._take_text()
        except ValueError as error:
            self.sentence.value = _said(f"Nothing to measure: {error}")
            return
        finally:
            self._moving = False
        self._redraw()

    def _take_text(self) -> None:
        """The whole text, and as many columns as the authors sum."""
        self.length.max = len(self._states()[0])
        self.length.value = self.length.max
        self._take_length()

    def _take_length(self) -> None:
        self.top.max = min(self.hidden.shape)
        self.top.value = self.top.max

    def _resize(self, _change: object = None) -> None:
        if self._moving:
            return
        self._moving = True
        self._take_length()
        self._moving = False
        self._redraw()

    def _redraw(self, _change: object = None) -> None:
        if self._moving:
            return
        hidden, top = self.hidden, self.top.value
        self.numbers = describe_hidden(hidden, top=top)
        self.layers = pd.DataFrame([describe_hidden(one[: self.length.value]) for one in self._states()])
        with self.spectrum.batch_update():
            for trace, fresh in zip(self.spectrum.data, spectrum_traces(spectra(hidden)), strict=True):
                trace.update(x=fresh.x, y=fresh.y)
            self.spectrum.layout.shapes[0].update(x0=top, x1=top)
            self.spectrum.layout.annotations[0].update(x=top, text=f"D = {top}")
        with self.by_layer.batch_update():
            for trace, column in zip(self.by_layer.data, ("mnn_over_bound", "entropy"), strict=True):
                trace.update(x=self.layers.index.tolist(), y=self.layers[column].tolist())
            self.by_layer.layout.shapes[0].update(x0=self.layer.value, x1=self.layer.value)
        self.sentence.value = _said(self._say())

    def _say(self) -> str:
        found = self.numbers
        if pd.isna(found["mnn"]):
            return "These tokens are all equal in this layer: without a direction there is no norm."
        return (
            f"Layer {self.layer.value}, {found['tokens']} tokens: the matrix nuclear norm is {found['mnn']:.4f} a "
            f"token, {found['mnn_over_bound']:.1%} of its bound {found['bound']:.4f}; the true nuclear norm is "
            f"{found['nuclear_norm']:.4f}. Matrix entropy {found['entropy']:.4f}, effective rank "
            f"{found['effective_rank']:.1f} of {min(self.hidden.shape)}."
        )


def _said(text: str) -> str:
    return f"<p style='font-size:15px'>{escape(text)}</p>"


def _layers_figure(last: int) -> go.Figure:
    looks = (("norm / bound", PALETTE[0], "solid"), ("matrix entropy", PALETTE[1], "dash"))
    figure = go.Figure(
        [
            go.Scatter(
                x=[], y=[], mode="lines+markers", name=name, line={"color": colour, "dash": dash, "width": 2.5},
                marker={"size": 6, "symbol": symbol}, hovertemplate="layer %{x}: %{y:.4f}<extra></extra>",
            )
            for (name, colour, dash), symbol in zip(looks, ("circle", "square"), strict=True)
        ]
    )  # fmt: skip
    figure.add_vline(x=last, line={"color": INK, "dash": "dash", "width": 1.5})
    figure.update_xaxes(title_text="layer (0 is the embedding)", range=[-0.5, last + 0.5])
    figure.update_yaxes(title_text="share", range=[0, 1.05])
    return figure.update_layout(height=320)
