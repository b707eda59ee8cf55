"""A tidy table in, a figure out, no state; importing this makes the workbench's template plotly's default."""

from workbench.plots.curves import curves
from workbench.plots.means import with_errors
from workbench.plots.theme import TEMPLATE
from workbench.plots.verdicts import verdicts

__all__ = ["TEMPLATE", "curves", "verdicts", "with_errors"]
