"""What the bench for teachers is asked: teachers and losses as tags, the rest as fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import ipywidgets as widgets

from workbench.models.pretrained import SHORT_NAMES
from workbench.training.bench_run import ENCODERS, check_teacher, loss_names
from workbench.training.teachers import Config
from workbench.widgets.config_fields import ConfigFields

SIZES = ("16x2", "32x2", "48x2", "64x2", "96x2", "128x2", "128x4", "192x4", "256x4")
AS_TAGS = ("teachers", "losses")


class TagChoice(widgets.VBox):
    """Several names, each a tag that its cross removes; a box below adds one more.

    Args:
        label: what is chosen.
        value: the names chosen first.
        offered: names to pick from; others may be typed.
        check: raises where a typed name cannot be one.
        say: told why a name was refused.
    """

    def __init__(
        self,
        label: str,
        value: Sequence[str],
        offered: Sequence[str],
        *,
        check: Callable[[str], object],
        say: Callable[[str], None],
        placeholder: str,
    ) -> None:
        self.tags = widgets.TagsInput(value=list(value), allow_duplicates=False)
        self.more = widgets.Combobox(options=list(offered), placeholder=placeholder, continuous_update=False)
        self.more.layout.width = self.tags.layout.width = "98%"
        self._check, self._say = check, say
        self.more.observe(self._add, names="value")
        super().__init__([widgets.HTML(f"<b>{label}</b>"), self.tags, self.more])

    def _add(self, change: dict) -> None:
        name = change["new"].strip()
        if not name:
            return
        try:
            self._check(name)
        except (ValueError, TypeError) as error:
            self._say(str(error))
            return
        if name not in self.tags.value:
            self.tags.value = [*self.tags.value, name]
        self.more.value = ""

    def enable(self, enabled: bool) -> None:
        """Let it be changed or not."""
        self.tags.disabled = self.more.disabled = not enabled


class BenchChoice(widgets.VBox):
    """Every field of the bench's config; :meth:`config` is what they say."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._config = config
        names = [name for name in SHORT_NAMES if name not in ENCODERS]
        self.teachers = TagChoice(
            "Teachers", config.teachers, [*SIZES, *names], check=check_teacher, say=say,
            placeholder="add: 128x4 (trained here), smollm2-135m, a folder, owner/name",
        )  # fmt: skip
        self.losses = TagChoice(
            "Losses", config.losses, loss_names(), check=_check_loss, say=say, placeholder="add a loss"
        )
        self.fields = ConfigFields(Config, config)
        for name in AS_TAGS:
            del self.fields.controls[name]
        places = [field.name for field in dataclasses.fields(Config) if field.name != "profile"]
        self.fields.children = [
            cell for name, cell in zip(places, self.fields.children, strict=True) if name not in AS_TAGS
        ]
        half = widgets.Layout(width="50%")
        self.teachers.layout = self.losses.layout = half
        more = widgets.Accordion([self.fields], titles=("Student, text, steps, seeds",), selected_index=None)
        super().__init__([widgets.HBox([self.teachers, self.losses]), more])

    def config(self) -> Config:
        """The config that is asked for.

        Raises:
            ValueError: a value that cannot work, in one sentence.
        """
        values = self.fields.read()
        teachers, losses = tuple(self.teachers.tags.value), tuple(self.losses.tags.value)
        return dataclasses.replace(self._config, **values, teachers=teachers, losses=losses)

    def enable(self, enabled: bool) -> None:
        """Let all be changed or not."""
        for part in (self.teachers, self.losses, self.fields):
            part.enable(enabled)


def _check_loss(name: str) -> None:
    from workbench.errors import check_choice

    check_choice("loss", name, loss_names())
