"""A stopped training run on disk: all that :func:`workbench.training.fit` needs to go on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from workbench.files import atomic_path


class Stateful(Protocol):
    """What has a state of its own beside the model, such as the schedule of a loss."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Go on from what :meth:`state_dict` gave."""


class FitCheckpoint:
    """One file that a stopped run leaves and that the same call goes on from; without a path it does nothing.

    Args:
        path: the file; None for no checkpoint.
        parts: what has a state: model, optimiser, history, and whatever the caller adds.
        recipe: the numbers that must be the same when the run is taken up again.
        every: steps between two writings; None writes only when the run is stopped.
        device: where the model computes; a CUDA device has a random stream of its own.
    """

    def __init__(
        self,
        path: Path | str | None,
        parts: Mapping[str, Stateful],
        recipe: Mapping[str, Any],
        *,
        every: int | None,
        device: torch.device,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.parts, self.recipe, self.every, self.device = parts, dict(recipe), every, device
        self._whole: int | None = 0  # the step at whose end everything stands; None in the middle of one

    def resume(self) -> int:
        """Bring every part, and torch's random stream, to where the file left them; return the steps done by then.

        Raises:
            ValueError: the file is of a run with other numbers, or is none of these files.
        """
        if self.path is None or not self.path.is_file():
            return 0
        advice = f"delete {self.path} to begin anew"
        try:
            stored = torch.load(self.path, map_location="cpu", weights_only=True)
            recipe, states = stored["recipe"], stored["parts"]
        except Exception as error:
            # Whatever it is: a file that is none raises whatever its first bytes happen to mean.
            raise ValueError(f"checkpoint {self.path.name} cannot be read: {advice}.") from error
        if recipe != self.recipe or set(states) != set(self.parts):
            names = [name for name in {**recipe, **self.recipe} if recipe.get(name) != self.recipe.get(name)]
            told = ", ".join(f"{name}={recipe.get(name)!r} (now {self.recipe.get(name)!r})" for name in names)
            raise ValueError(f"checkpoint {self.path.name} is of a run with {told or 'another loss'}: {advice}.")
        for name, part in self.parts.items():
            part.load_state_dict(states[name])
        torch.set_rng_state(stored["random"])
        if "random_cuda" in stored and self.device.type == "cuda":
            torch.cuda.set_rng_state(stored["random_cuda"], self.device)
        self._whole = stored["step"]
        return stored["step"]

    def begin_step(self) -> None:
        """From here on nothing is whole until :meth:`end_step`."""
        self._whole = None

    def end_step(self, step: int) -> None:
        """Note that ``step`` is done, hooks and evaluation included; write if it is time."""
        self._whole = step
        if self.every is not None and step % self.every == 0:
            self.write()

    def write(self) -> None:
        """Write the file, unless a step is half done: then the last one written stands.

        Raises:
            AssetError: the folder cannot be written or the disk is full.
        """
        if self.path is None or self._whole is None:
            return
        content = {
            "step": self._whole,
            "recipe": self.recipe,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "random": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            content["random_cuda"] = torch.cuda.get_rng_state(self.device)
        with atomic_path(self.path) as temporary:
            torch.save(content, temporary)

    def remove(self) -> None:
        """The run has come to its end."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
