"""The table of losses holds every loss, and every loss has its documentation."""

from __future__ import annotations

import inspect

import pytest

import workbench.losses as losses
from workbench.losses import LOSSES, NEEDS_LABELS

HELPERS = {  # what is public beside the losses themselves
    "BDKDTerms", "LOSSES", "NEEDS_LABELS", "REDUCTIONS", "TAIDSchedule", "hidden_projection", "loss_by_name",
    "loss_options", "reduce_tokens", "standardize_logits", "taid_target",
}  # fmt: skip
OF_THE_CATALOGUE = sorted(set(losses.__all__) - HELPERS)


def rows() -> list[str]:
    """First words of the lines of the table."""
    return [line.split()[0] for line in losses.__doc__.splitlines() if line[:1].isalpha()]


@pytest.mark.parametrize("name", OF_THE_CATALOGUE)
def test_every_public_loss_has_a_row_and_a_docstring(name):
    assert name in rows()
    assert inspect.getdoc(getattr(losses, name))


def test_every_loss_with_a_name_is_public():
    assert {*LOSSES, *NEEDS_LABELS} <= set(OF_THE_CATALOGUE)


@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_of_the_common_signature_have_it(name):
    kinds = inspect.signature(LOSSES[name]).parameters
    assert list(kinds)[:3] == ["student_logits", "teacher_logits", "mask"]
    common = {"temperature": 1.0, "scale_by_t2": True, "reduction": "token_mean", "num_items": None}
    assert {key: kinds[key].default for key in common} == common
    assert all(one.kind is one.KEYWORD_ONLY for one in list(kinds.values())[3:])
