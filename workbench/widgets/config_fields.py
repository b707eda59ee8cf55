"""A widget for every field of a ``Config``, and the way back from what was typed to a value."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets

from workbench.profiles import Field, describe
from workbench.runs.values import parse_value

EMPTY = "none"  # how a missing value is typed
FIXED = "workbench-fixed"  # the class of a text box that shows what cannot be typed
PLAIN = (bool, int, float, str, type(None))


class ConfigFields(widgets.GridBox):
    """All fields of a config but its profile, each with its comment; ``controls`` holds the widgets by name.

    A string field is a drop-down where the class names its choices, by ``Literal[...]`` or in a class
    variable ``choices`` (field name -> values). What no text box can hold is shown and left as it is.
    """

    def __init__(self, config_class: type, config: Any):
        self._fields = {field.name: field for field in describe(config_class) if field.name != "profile"}
        offered = getattr(config_class, "choices", {})
        self.controls = {
            name: _control(field, getattr(config, name), _choices(field, offered))
            for name, field in self._fields.items()
        }
        cells = [_cell(field, self.controls[name]) for name, field in self._fields.items()]
        layout = widgets.Layout(grid_template_columns="repeat(auto-fill, minmax(300px, 1fr))", grid_gap="8px 20px")
        super().__init__(cells, layout=layout)

    def fill(self, config: Any) -> None:
        """Show the values of ``config``."""
        for name, control in self.controls.items():
            value = getattr(config, name)
            control.value = _as_text(value) if isinstance(control, widgets.Text) else value

    def read(self) -> dict[str, Any]:
        """The values that were typed, by field name.

        Raises:
            ValueError: a text that is no value of the field's type; the field is named.
        """
        return {
            name: _value(self._fields[name], control.value)
            for name, control in self.controls.items()
            if FIXED not in control._dom_classes
        }

    def enable(self, enabled: bool) -> None:
        """Let the fields be changed or not; those that no text box can hold stay as they are."""
        for control in self.controls.values():
            if FIXED not in control._dom_classes:
                control.disabled = not enabled


def _choices(field: Field, offered: Mapping[str, Sequence[str]]) -> Sequence[str] | None:
    if field.name in offered:
        return list(offered[field.name])
    kind = field.type.removeprefix("typing.")
    return list(ast.literal_eval(f"({kind[8:-1]},)")) if kind.startswith("Literal[") else None


def _control(field: Field, value: Any, choices: Sequence[str] | None) -> widgets.ValueWidget:
    if choices is not None:
        return widgets.Dropdown(options=choices, value=value)
    if field.type == "bool":
        return widgets.Checkbox(value, indent=False)
    if field.type == "int":
        return widgets.IntText(value)
    if field.type == "float":
        return widgets.FloatText(value)
    text = widgets.Text(_as_text(value), continuous_update=False)
    if not _is_plain(value):
        text.disabled = True
        text.tooltip = "Set this one in code."
        text.add_class(FIXED)
    return text


def _cell(field: Field, control: widgets.ValueWidget) -> widgets.Widget:
    control.layout.width = "98%"
    control.tooltip = control.tooltip or field.comment or None
    name = f"<b>{escape(field.name.replace('_', ' '))}</b>"
    comment = f"<span style='opacity:.7;font-size:90%'>{escape(field.comment)}</span>"
    label = widgets.HTML(f"<div style='line-height:1.25'>{name}<br>{comment}</div>")
    return widgets.VBox([label, control], layout=widgets.Layout(justify_content="space-between"))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, PLAIN)


def _as_text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(f"[{_as_text(item)}]" if isinstance(item, tuple | list) else _as_text(item) for item in value)
    return EMPTY if value is None else str(value)


def _value(field: Field, typed: Any) -> Any:
    if not isinstance(typed, str) or field.type == "str" or field.type.removeprefix("typing.").startswith("Literal["):
        return typed
    if typed.strip().lower() == EMPTY:
        return None
    listed = field.type.startswith(("tuple", "list"))
    try:
        value = parse_value(f"[{typed}]" if listed else typed, "list" if listed else field.type)
    except ValueError as error:
        wanted = "values with commas between, such as 0, 1, 2" if listed else field.type
        raise ValueError(f"{field.name}: expected {wanted}, got {typed!r}.") from error
    return _frozen(value)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
