"""Losses on hidden states: hand sums, what they cannot notice, masks, half precision and refusals."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from tests.losses.cases import logits as states
from workbench.losses.hidden_states import (
    attention_transfer,
    fitnet,
    hidden_cosine,
    hidden_projection,
    minilm_relations,
)

MASK = torch.tensor([[True, True, False, True], [True, False, False, True], [False] * 4])


def relations(student, teacher, mask=None, **options):
    return minilm_relations(student, teacher, mask, relation_heads=2, **options)


PER_POSITION = {"fitnet": fitnet, "hidden_cosine": hidden_cosine, "minilm_relations": relations}
EVERY = PER_POSITION | {"attention_transfer": attention_transfer}
every_loss = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY)
per_position = pytest.mark.parametrize("loss", PER_POSITION.values(), ids=PER_POSITION)


@every_loss
def test_equal_states_cost_nothing(loss):
    hidden = states(3, 4, 6)
    assert abs(loss(hidden, hidden.clone())) < 1e-12
    assert loss(hidden, states(3, 4, 6, seed=1)) > 1e-3


@every_loss
def test_gradients_are_the_numerical_ones_and_the_teacher_gets_none(loss):
    student, teacher = states(3, 4, 6).requires_grad_(), states(3, 4, 6, seed=1).requires_grad_()
    assert gradcheck(lambda hidden: loss(hidden, teacher, MASK), student)
    assert torch.autograd.grad(loss(student, teacher), teacher, allow_unused=True) == (None,)


@every_loss
def test_what_lies_at_masked_positions_is_not_read(loss):
    student, teacher = states(3, 4, 6), states(3, 4, 6, seed=1)
    wanted = loss(student, teacher, MASK)
    dirty_student, dirty_teacher = student.clone(), teacher.clone()
    dirty_student[~MASK], dirty_teacher[~MASK] = torch.nan, torch.inf
    dirty_student.requires_grad_()
    value = loss(dirty_student, dirty_teacher, MASK)
    torch.testing.assert_close(value, wanted)
    value.backward()
    assert dirty_student.grad.isfinite().all()
    assert not dirty_student.grad[~MASK].any()


@every_loss
def test_a_fully_masked_batch_is_zero_with_a_connected_graph(loss):
    student = torch.full((2, 3, 4), torch.nan).requires_grad_()
    value = loss(student, states(2, 3, 4).float(), torch.zeros(2, 3, dtype=torch.bool))
    assert value == 0
    value.backward()
    assert not student.grad.any()


@every_loss
def test_an_empty_batch_is_zero(loss):
    student = torch.zeros(0, 3, 4, requires_grad=True)
    value = loss(student, torch.zeros(0, 3, 4))
    assert value == 0
    value.backward()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_float64_stays(loss, dtype):
    student, teacher = states(3, 4, 6, scale=300).to(dtype), states(3, 4, 6, seed=1, scale=300).to(dtype)
    value = loss(student, teacher, MASK)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert torch.equal(value, loss(student.float(), teacher.float(), MASK))
    assert loss(student.double(), teacher, MASK).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(student, teacher, MASK), value)


@every_loss
def test_states_of_zeros_have_a_finite_gradient(loss):
    student = torch.zeros(2, 3, 4, requires_grad=True)
    loss(student, states(2, 3, 4).float()).backward()
    assert student.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("shape", [(3, 5, 6), (2, 4, 6)])
def test_another_length_or_batch_is_refused(loss, shape):
    with pytest.raises(ValueError, match=r"\(3, 4, 6\).*all axes but the last, such as batch and time, must agree"):
        loss(states(3, 4, 6), states(*shape))


@every_loss
def test_integers_lists_and_masks_that_are_not_bool_are_refused(loss):
    with pytest.raises(TypeError, match="floating-point"):
        loss(torch.ones(2, 3, 4, dtype=torch.long), states(2, 3, 4))
    with pytest.raises(TypeError, match="mask must be a bool tensor"):
        loss(states(2, 3, 4), states(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"mask has shape \(2, 4\), expected \(2, 3\)"):
        loss(states(2, 3, 4), states(2, 3, 4), torch.ones(2, 4, dtype=torch.bool))


@per_position
def test_the_mean_is_over_positions_that_count_and_parts_add_up(loss):
    student, teacher = states(3, 4, 6), states(3, 4, 6, seed=1)
    each = loss(student, teacher, MASK, reduction="none")
    assert each.shape == (3, 4)
    torch.testing.assert_close(loss(student, teacher, MASK), each[MASK].mean())
    parts = [loss(student[i], teacher[i], MASK[i], num_items=int(MASK.sum())) for i in range(3)]
    torch.testing.assert_close(sum(parts), each[MASK].mean())


def test_fitnet_is_the_mean_squared_difference_after_the_projection():
    projection = torch.nn.Linear(2, 3).double()
    student, teacher = states(3, 4, 2), states(3, 4, 3)
    torch.testing.assert_close(
        fitnet(student, teacher, projection=projection), F.mse_loss(projection(student), teacher)
    )
    assert fitnet(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])) == 2.5


def test_a_projection_starts_orthogonal_learns_and_is_needed_where_widths_differ():
    for widths in ((4, 6), (6, 4)):
        weight = hidden_projection(*widths).weight
        product = weight @ weight.T if widths[1] <= widths[0] else weight.T @ weight
        torch.testing.assert_close(product, torch.eye(min(widths)))
    projection = hidden_projection(4, 6, seed=3)
    assert torch.equal(projection.weight, hidden_projection(4, 6, seed=3).weight)
    assert not torch.equal(projection.weight, hidden_projection(4, 6, seed=4).weight)
    student, teacher = states(20, 4).float(), states(20, 6, seed=1).float()
    for loss in (fitnet, hidden_cosine):
        with pytest.raises(ValueError, match="hidden_projection"):
            loss(student, teacher)
        before = loss(student, teacher, projection=projection)
        optimizer = torch.optim.SGD(projection.parameters(), lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            loss(student, teacher, projection=projection).backward()
            optimizer.step()
        assert loss(student, teacher, projection=projection) < before


def test_the_cosine_is_that_of_torch_and_blind_to_length():
    student, teacher = states(3, 4, 6), states(3, 4, 6, seed=1)
    torch.testing.assert_close(hidden_cosine(student, teacher), 1 - F.cosine_similarity(student, teacher, -1).mean())
    torch.testing.assert_close(hidden_cosine(student, teacher), hidden_cosine(7 * student, teacher))
    assert hidden_cosine(student, -student).item() == pytest.approx(2)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_attention_transfer_is_that_of_the_official_code_on_pictures_and_on_text(p):
    student, teacher = states(3, 5, 2, 4), states(3, 7, 2, 4, seed=1)  # channels may differ
    maps = [F.normalize(x.abs().pow(p).mean(1).flatten(1)) for x in (student, teacher)]
    torch.testing.assert_close(attention_transfer(student, teacher, p=p), (maps[0] - maps[1]).pow(2).mean())
    paper = (maps[0] - maps[1]).norm(dim=1).mean()
    torch.testing.assert_close(attention_transfer(student, teacher, p=p, form="paper"), paper)
    as_text = [x.flatten(2).transpose(1, 2) for x in (student, teacher)]  # [batch, time, width]
    torch.testing.assert_close(attention_transfer(*as_text, p=p), (maps[0] - maps[1]).pow(2).mean())


def test_attention_transfer_by_hand():
    # maps (9, 16) and (1, 0), so (9, 16) / sqrt(337) against (1, 0)
    student, teacher = torch.tensor([[[3.0], [4.0]]]), torch.tensor([[[1.0], [0.0]]])
    first, second = 9 / math.sqrt(337) - 1, 16 / math.sqrt(337)
    assert attention_transfer(student, teacher).item() == pytest.approx((first**2 + second**2) / 2)
    assert attention_transfer(student, teacher, form="paper").item() == pytest.approx(math.hypot(first, second))


def test_attention_transfer_sees_neither_the_size_of_the_activity_nor_the_order_of_channels():
    student, teacher = states(3, 5, 2, 4), states(3, 5, 2, 4, seed=1)
    value = attention_transfer(student, teacher)
    torch.testing.assert_close(attention_transfer(9 * student, -student.roll(1, 1)), torch.zeros_like(value))
    torch.testing.assert_close(attention_transfer(9 * student, teacher.flip(1)), value)


def test_attention_transfer_of_a_padded_batch_is_that_of_its_sentences():
    student, teacher = states(2, 4, 6), states(2, 4, 5, seed=1)
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    each = [
        attention_transfer(student[:1, :3], teacher[:1, :3], form="paper"),
        attention_transfer(student[1:], teacher[1:], form="paper"),
    ]
    torch.testing.assert_close(attention_transfer(student, teacher, mask, form="paper"), sum(each) / 2)


@pytest.mark.parametrize("options", [{"p": 0.5}, {"p": 0}, {"form": "papers"}])
def test_attention_transfer_refuses_what_it_does_not_know(options):
    with pytest.raises(ValueError, match="p=|Did you mean 'paper'"):
        attention_transfer(states(2, 3, 4), states(2, 3, 4), **options)
    with pytest.raises(ValueError, match=r"expected \[batch, channels"):
        attention_transfer(states(3, 4), states(3, 4))


def eager_relations(student, teacher, mask, heads, pairs, causal):
    """MiniLM with loops over heads, rows and sentences."""
    losses = []
    for row in range(len(mask)):
        keep = mask[row].nonzero().squeeze(-1)
        for here in range(len(keep)):
            seen = keep[: here + 1] if causal else keep
            for left, right in pairs:
                for head in range(heads):
                    log_probs = []
                    for side in (teacher, student):
                        x, y = (side["qkv".index(one)][row].chunk(heads, -1)[head] for one in (left, right))
                        scores = (y[seen] @ x[keep[here]]) / math.sqrt(x.shape[-1])
                        log_probs.append(scores.log_softmax(-1))
                    losses.append((log_probs[0].exp() * (log_probs[0] - log_probs[1])).sum() / heads)
    return sum(losses) / mask.sum()


@pytest.mark.parametrize("pairs", [("qk", "vv"), ("qq", "kk", "vv")])
@pytest.mark.parametrize("causal", [False, True])
def test_minilm_relations_are_those_written_with_loops(pairs, causal):
    student = [states(3, 4, 6, seed=seed) for seed in range(3)]
    teacher = [states(3, 4, 12, seed=seed) for seed in range(3, 6)]  # another width
    ours = minilm_relations(student, teacher, MASK, relation_heads=3, relations=pairs, causal=causal)
    torch.testing.assert_close(ours, eager_relations(student, teacher, MASK, 3, pairs, causal))


def test_minilm_relations_cannot_notice_a_rotation_within_a_head():
    rotation = torch.linalg.qr(states(6, 6)).Q
    student, teacher = states(2, 4, 6), states(2, 4, 8, seed=1)
    torch.testing.assert_close(
        minilm_relations(student @ rotation, teacher, relation_heads=1),
        minilm_relations(student, teacher, relation_heads=1),
    )


def test_minilm_relations_refuse_what_does_not_fit():
    one, three = states(2, 4, 6), [states(2, 4, 6)] * 3
    with pytest.raises(ValueError, match="relation_heads=4 does not divide the width 6 of the student"):
        minilm_relations(one, one, relation_heads=4)
    with pytest.raises(ValueError, match="Did you mean 'qk'"):
        minilm_relations(three, three, relation_heads=2, relations=["qkv"])
    with pytest.raises(ValueError, match="both be one tensor or both"):
        minilm_relations(one, three, relation_heads=2)
    with pytest.raises(ValueError, match="2 parts"):
        minilm_relations(three[:2], three, relation_heads=2)
    with pytest.raises(ValueError, match="relations is empty"):
        minilm_relations(three, three, relation_heads=2, relations=())
