"""What a notebook can be asked: the parameters cell, read without a kernel and without papermill."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from workbench.errors import check_choice
from workbench.profiles import PROFILES
from workbench.runs.notebooks import Notebook
from workbench.runs.values import EXPECTED, parse_value, split_top_level


@dataclass(frozen=True)
class Parameter:
    """One assignment of the parameters cell; its trailing comment is the help."""

    name: str
    type: str  # int | float | bool | str | list | dict, or as annotated
    default: Any
    comment: str


def parameters(notebook: Notebook) -> list[Parameter]:
    """The parameters in the cell's order; none where no cell is tagged ``parameters``.

    Raises:
        ValueError: the cell is more than plain assignments of literals.
    """
    source = notebook.tagged("parameters") or ""
    try:
        comments = {
            token.start[0]: token.string.lstrip("# ").strip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        return [_parameter(statement, comments) for statement in ast.parse(source).body]
    except (SyntaxError, tokenize.TokenError, ValueError) as error:
        raise ValueError(
            f"The parameters cell of {notebook.path.name} must hold only lines such as "
            f"'steps: int = None  # optimiser steps': {error}."
        ) from error


def _parameter(statement: ast.stmt, comments: dict[int, str]) -> Parameter:
    comment = comments.get(statement.end_lineno or 0, "")
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        kind = ast.unparse(statement.annotation).partition("[")[0]
        return Parameter(statement.target.id, kind, ast.literal_eval(statement.value), comment)
    if isinstance(statement, ast.Assign) and isinstance(target := statement.targets[0], ast.Name):
        default = ast.literal_eval(statement.value)
        kind = "list" if isinstance(default, tuple) else type(default).__name__
        return Parameter(target.id, kind if default is not None else "Any", default, comment)
    raise ValueError(f"line {statement.lineno} is no assignment")


def read_values(notebook: Notebook, assignments: Iterable[str], *, profile: str | None = None) -> dict[str, Any]:
    """``name=value`` texts typed by the notebook's own parameters; the profile is always among the values.

    Raises:
        UnknownName: no such parameter or profile ("did you mean").
        ValueError: no ``=``, a value of another type, or a parameter given twice.
    """
    grid = read_grid(notebook, assignments, profile=profile, split=False)
    return {name: values[0] for name, values in grid.items()}


def read_grid(
    notebook: Notebook, assignments: Iterable[str], *, profile: str | None = None, split: bool = True
) -> dict[str, list[Any]]:
    """Like :func:`read_values`, with every comma outside of brackets separating one value from the next."""
    known = {parameter.name: parameter for parameter in parameters(notebook)}
    grid: dict[str, list[Any]] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"-p {assignment} has no '=': write -p name=value.")
        check_choice("parameter", name.strip(), known)
        parameter = known[name.strip()]
        if parameter.name in grid:
            raise ValueError(f"parameter {parameter.name} was given twice: write all its values in one -p.")
        texts = split_top_level(text) if split else [text]
        grid[parameter.name] = [typed(parameter, one) for one in texts]
    if profile is not None and "profile" in grid:
        raise ValueError("the profile was given twice: by --profile and by -p profile=.")
    if "profile" in known:
        # --profile may meet notebooks that have none (the index), -p profile= may not.
        grid.setdefault("profile", [profile or known["profile"].default])
        for value in grid["profile"]:
            check_choice("profile", value, PROFILES)
    if profile is not None:
        check_choice("profile", profile, PROFILES)
    return {name: values for name, values in grid.items() if values != [None]}


def typed(parameter: Parameter, text: str) -> Any:
    """``text`` as this parameter's type; ``none`` means "from the profile", except where it may be a word.

    Raises:
        ValueError: in one sentence that names the parameter.
    """
    if parameter.type != "str" and text.strip().lower() in ("none", "null"):
        return None
    try:
        return parse_value(text, parameter.type)
    except ValueError as error:
        raise ValueError(f"parameter {parameter.name}: {error}.") from error


def check_values(notebook: Notebook, values: dict[str, Any]) -> None:
    """Refuse Python values that the notebook does not know or that are of another type than it says.

    Raises:
        UnknownName: no such parameter or profile ("did you mean").
        TypeError: a value of another type.
    """
    known = {parameter.name: parameter for parameter in parameters(notebook)}
    python = {"int": int, "float": (int, float), "bool": bool, "str": str, "list": (list, tuple), "dict": dict}
    for name, value in values.items():
        kind = known[check_choice("parameter", name, known)].type
        wrong_bool = isinstance(value, bool) and kind in ("int", "float")
        if value is not None and kind in python and (wrong_bool or not isinstance(value, python[kind])):
            raise TypeError(f"parameter {name}: expected {EXPECTED[kind]}, got {value!r}.")
    if "profile" in values:
        check_choice("profile", values["profile"], PROFILES)
