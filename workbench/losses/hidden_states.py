"""What pulls a student's hidden states towards a teacher's, position by position.

Hidden states are ``[batch, time, width]`` (any leading axes), the mask ``[batch, time]`` bool. What lies at
positions that do not count is not read. Computed in float32, or float64 if an input is; the teacher is held fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workbench.errors import check_choice, check_mask, check_positive
from workbench.losses.closed_form import wide_dtype
from workbench.losses.divergence import forward_kl
from workbench.losses.reduction import reduce_tokens

RELATIONS = ("qk", "vv", "qq", "kk")


def hidden_projection(student_width: int, teacher_width: int, *, seed: int = 0) -> nn.Linear:
    """A linear map without bias from the student's width to the teacher's, for ``fitnet`` and ``hidden_cosine``.

    It learns with the student, so its parameters must be given to the optimiser; it is thrown away afterwards.
    It starts with orthogonal rows (columns if the teacher is wider), so that lengths keep their size.
    """
    check_positive(student_width=student_width, teacher_width=teacher_width)
    projection = nn.utils.skip_init(nn.Linear, student_width, teacher_width, bias=False)
    nn.init.orthogonal_(projection.weight, generator=torch.Generator().manual_seed(seed))
    return projection


def fitnet(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    mask: Tensor | None = None,
    *,
    projection: nn.Module | None = None,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""Mean squared difference of projected student and teacher hidden states (Romero et al. 2015, FitNets).

    .. math:: \frac{1}{width} \| W h_{student} - h_{teacher} \|^2

    Args:
        student_hidden: ``[..., student_width]``.
        teacher_hidden: ``[..., teacher_width]`` with the same leading axes; no gradient flows into them.
        mask: ``[...]`` bool, True where a position counts.
        projection: a module from the student's width to the teacher's, such as :func:`hidden_projection`,
            whose parameters the optimiser must know; None where the widths are equal.
        reduction, num_items: as in :func:`forward_kl`.

    Returns:
        A scalar (``[...]`` for ``none``); 0 with zero gradient where nothing counts.

    Raises:
        ValueError: another batch or length, different widths after the projection.
        TypeError: tensors that are not floating-point, or a mask that is not bool.
    """
    student, teacher = _projected(student_hidden, teacher_hidden, mask, projection)
    per_position = (student - teacher).square().mean(-1)
    return reduce_tokens(per_position, mask, reduction=reduction, num_items=num_items)


def hidden_cosine(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    mask: Tensor | None = None,
    *,
    projection: nn.Module | None = None,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """One minus the cosine of projected student and teacher hidden states (Sanh et al. 2019, DistilBERT).

    From 0 (same direction) to 2; a state of length 0 counts 1, without a gradient. Arguments, result and
    errors as in :func:`fitnet`.
    """
    student, teacher = _projected(student_hidden, teacher_hidden, mask, projection)
    cosine = (unit(student) * unit(teacher)).sum(-1)
    return reduce_tokens(1 - cosine, mask, reduction=reduction, num_items=num_items)


def attention_transfer(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, *, p: float = 2, form: str = "code"
) -> Tensor:
    r"""How differently the two spread their activity over positions (Zagoruyko & Komodakis 2017).

    The map of a sample is ``sum_c |A_c|^p`` over its channels, divided by its length over all positions, so
    channels may differ in number and size. Paper and official code differ in what follows:

    .. math:: \text{code: } \mathrm{mean}_{sample, position} (Q_s - Q_t)^2, \qquad
              \text{paper: } \mathrm{mean}_{sample} \| Q_s - Q_t \|_2

    Args:
        student, teacher: ``[batch, channels, height, width]`` feature maps, or ``[batch, time, width]`` hidden
            states, whose width is what is summed over; the gradient flows into the student alone.
        mask: bool over the positions (``[batch, time]``), True where one counts.
        p: power, 1 or above.
        form: ``code`` (the default, and what later libraries took over) or ``paper``.

    Raises:
        ValueError: other batch or positions, ``p`` below 1, an unknown form, fewer than three axes.
        TypeError: tensors that are not floating-point, or a mask that is not bool.
    """
    check_choice("form", form, ("code", "paper"))
    check_positive(p=p)
    if p < 1:
        raise ValueError(f"p={p!r} must be 1 or above: below, the gradient at an activity of 0 is infinite.")
    for name, states in (("student", student), ("teacher", teacher)):
        if isinstance(states, Tensor) and states.dim() < 3:
            raise ValueError(
                f"{name} has shape {tuple(states.shape)}: expected [batch, channels, height, width] or "
                "[batch, time, width]."
            )
    if isinstance(student, Tensor) and isinstance(teacher, Tensor) and student.dim() == teacher.dim() > 3:
        student, teacher = student.movedim(1, -1), teacher.movedim(1, -1)
    student, teacher = prepared(student, teacher, mask, names=("student", "teacher"))
    maps = [unit(_power(states, p).sum(-1).flatten(1)) for states in (student, teacher)]
    squares = (maps[0] - maps[1]).square()
    positions = squares.new_ones(()) if mask is None else mask.flatten(1).to(squares.dtype)
    positions = positions.expand(squares.shape)
    if form == "code":
        return squares.sum() / positions.sum().clamp(min=1)
    samples = positions.amax(-1).sum().clamp(min=1)  # those that have a position
    return torch.linalg.vector_norm(maps[0] - maps[1], dim=-1).sum() / samples


def minilm_relations(
    student: Tensor | Sequence[Tensor],
    teacher: Tensor | Sequence[Tensor],
    mask: Tensor | None = None,
    *,
    relation_heads: int,
    relations: Sequence[str] = ("qk", "vv"),
    causal: bool = False,
    reduction: str = "token_mean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    r"""KL between the attentions that the two would pay, per relation head (Wang et al. 2020 and 2021, MiniLM).

    .. math:: KL(R_{teacher} \| R_{student}), \qquad R = \mathrm{softmax}(x_h y_h^\top / \sqrt{d_h})

    Queries, keys and values are cut into ``relation_heads`` heads whatever the models' own number is, so
    both the width and the number of heads may differ. The mean over heads, the sum over relations.

    Args:
        student, teacher: ``(queries, keys, values)`` of one layer, each ``[batch, time, width]``; or one
            tensor, whose relation to itself is taken (``vv``). No gradient flows into the teacher's.
        mask: ``[batch, time]`` bool; positions that do not count neither attend nor are attended.
        relation_heads: how many; must divide the width of each.
        relations: any of ``qk`` and ``vv`` (the first paper), ``qq`` and ``kk`` (the second, with ``vv``).
        causal: a position sees itself and those before it, as in a decoder.
        reduction, num_items: as in :func:`forward_kl`, over positions.

    Raises:
        ValueError: other batch or length, heads that do not divide a width, an unknown relation, ``relations``
            beside a single tensor.
        TypeError: tensors that are not floating-point, or a mask that is not bool.
    """
    check_positive(relation_heads=relation_heads)
    pairs = list(zip(_triple("student", student), _triple("teacher", teacher), strict=True))
    if len({isinstance(one, Tensor) for one in (student, teacher)}) > 1:
        raise ValueError("student and teacher must both be one tensor or both (queries, keys, values).")
    chosen = ("vv",) if isinstance(student, Tensor) else tuple(relations)
    if not chosen:
        raise ValueError(f"relations is empty: name at least one of {RELATIONS}.")
    for relation in chosen:
        check_choice("relation", relation, RELATIONS)
    heads = [
        [
            _heads(one, relation_heads, name)
            for one, name in zip(prepared(*pair, mask), ("student", "teacher"), strict=True)
        ]
        for pair in pairs
    ]
    hidden = None if mask is None else ~mask[..., None, None, :]
    total = 0.0
    for relation in chosen:
        left, right = ("qkv".index(letter) for letter in relation)
        logits = [_relation(heads[left][side], heads[right][side], hidden, causal) for side in (0, 1)]
        rows = None if mask is None else mask.unsqueeze(-2).expand(logits[0].shape[:-1])
        total = total + forward_kl(*logits, rows, reduction="none").mean(-2)
    return reduce_tokens(total, mask, reduction=reduction, num_items=num_items)


def prepared(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None,
    *,
    names: tuple[str, str] = ("student_hidden", "teacher_hidden"),
) -> tuple[Tensor, Tensor]:
    """Both in the wide type, 0 where nothing counts, the teacher detached.

    Raises:
        ValueError: leading axes that differ, fewer than two axes, or no width.
        TypeError: tensors that are not floating-point, or a mask that is not bool.
    """
    for name, states in zip(names, (student, teacher), strict=True):
        if not isinstance(states, Tensor) or not states.is_floating_point():
            kind = states.dtype if isinstance(states, Tensor) else type(states).__name__
            raise TypeError(f"{name} must be a tensor of floating-point hidden states [..., width]; got {kind}.")
        if states.dim() < 2 or states.shape[-1] == 0:
            raise ValueError(
                f"{name} has shape {tuple(states.shape)}: expected [..., width] such as [batch, time, width]."
            )
    if student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            f"{names[0]} is {tuple(student.shape)} and {names[1]} {tuple(teacher.shape)}: all axes but the last, such "
            "as batch and time, must agree; give both models the same inputs, and pool or cut what is longer."
        )
    check_mask(mask, student.shape[:-1])
    dtype = wide_dtype(student, teacher)
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    if mask is None:
        return student, teacher
    # Chosen, not multiplied away: 0 * NaN is NaN.
    student, teacher = (states.masked_fill(~mask.unsqueeze(-1), 0.0) for states in (student, teacher))
    return student, teacher


def unit(vectors: Tensor) -> Tensor:
    """Vectors ``[..., width]`` divided by their length; those of length 0 stay 0, with zero gradient."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.masked_fill(length == 0, 1.0)


def _projected(
    student: Tensor, teacher: Tensor, mask: Tensor | None, projection: nn.Module | None
) -> tuple[Tensor, Tensor]:
    student, teacher = prepared(student, teacher, mask)
    if projection is not None:
        weight = next(projection.parameters(), student)
        student = projection(student.to(weight.dtype)).to(student.dtype)
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student's hidden states have shape {tuple(student.shape)}"
            f"{'' if projection is None else ' after the projection'} and the teacher's {tuple(teacher.shape)}: give "
            "projection=hidden_projection(student_width, teacher_width), and its parameters to the optimiser."
        )
    return student, teacher


def _power(states: Tensor, p: float) -> Tensor:
    return states.square() if p == 2 else states.abs().pow(p)


def _triple(name: str, states: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    if isinstance(states, Tensor):
        return states, states, states
    triple = tuple(states)
    if len(triple) != 3:
        raise ValueError(f"{name} has {len(triple)} parts: expected (queries, keys, values), or one tensor.")
    return triple


def _heads(states: Tensor, count: int, name: str) -> Tensor:
    """``[..., time, width] -> [..., heads, time, width / heads]``."""
    width = states.shape[-1]
    if width % count:
        raise ValueError(f"relation_heads={count} does not divide the width {width} of the {name}.")
    return states.unflatten(-1, (count, width // count)).transpose(-2, -3)


def _relation(left: Tensor, right: Tensor, hidden: Tensor | None, causal: bool) -> Tensor:
    """Relation logits ``[..., heads, time, time]``, -inf where a position is not seen."""
    with torch.autocast(left.device.type, enabled=False):  # it would narrow the product
        logits = left @ right.transpose(-1, -2) / math.sqrt(left.shape[-1])
    if hidden is not None:
        logits = logits.masked_fill(hidden, -torch.inf)
    if causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    return logits
