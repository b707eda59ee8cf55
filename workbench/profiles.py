"""Profiles: one protocol in four sizes, and what a field of a ``Config`` says about itself."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from workbench.errors import UnknownName, check_choice
from workbench.runtime import require_paper_setting

PROFILES = ("smoke", "quick", "full", "paper")


class Profiled:
    """Mixin of every experiment's frozen ``Config`` dataclass.

    The field defaults are the ``quick`` profile; ``profiles`` holds what the others change. A profile
    changes sizes and seeds, never the protocol.
    """

    profiles: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def of(cls, profile: str = "quick", **overrides: Any) -> Self:
        """The config of ``profile``; an override of ``None`` means "from the profile".

        Raises:
            ValueError: unknown profile or field ("did you mean"), or values that cannot work.
        """
        check_choice("profile", profile, PROFILES)
        names = [field.name for field in dataclasses.fields(cls) if field.name != "profile"]
        for name in overrides:
            check_choice("parameter", name, names)
        chosen = {name: value for name, value in overrides.items() if value is not None}
        values = {**cls.profiles.get(profile, {}), **chosen}
        # Papermill and JSON know lists only; the config is frozen and hashable.
        frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**frozen, profile=profile)

    def require_setting(self) -> None:
        """What an experiment's first step calls: at profile ``paper`` all that is missing is said at once.

        Raises:
            AssetError: there is no GPU, no hub, or a package is not installed.
        """
        if self.profile == "paper":
            require_paper_setting()


@dataclass(frozen=True)
class Field:
    """One field of a config as its source line describes it."""

    name: str
    type: str
    default: Any
    comment: str


def describe(config_class: type) -> list[Field]:
    """The fields of a config dataclass with their trailing comments, in order.

    Raises:
        UnknownName: the class has no readable source.
    """
    try:
        source = textwrap.dedent(inspect.getsource(config_class))
    except OSError as error:
        raise UnknownName(f"{config_class.__name__} has no source to read comments from.") from error
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    # The source's own annotations: a class without postponed evaluation would show "<class 'int'>".
    nodes = {
        node.target.id: node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return [
        Field(name, ast.unparse(nodes[name].annotation), default, comments.get(nodes[name].end_lineno or 0, ""))
        for name, default in ((field.name, field.default) for field in dataclasses.fields(config_class))
    ]
