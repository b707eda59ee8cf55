"""The chunked last-layer loss: the plain losses' numbers, with no logits of all tokens ever alive."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workbench.errors import UnknownName
from workbench.losses import loss_by_name
from workbench.losses.chunked import chunked_linear_distillation

TOKENS, VOCAB, WIDTH, TEACHER_WIDTH = 13, 37, 6, 9
VARIANTS = [
    ("forward_kl", {}),
    ("reverse_kl", {}),
    ("jeffreys", {}),
    ("symmetric_kl", {"weight": 0.3}),
    ("generalized_jsd", {"beta": 0.5}),
    ("generalized_jsd", {"beta": 0.2}),
    ("skew_kl", {"alpha": 0.1}),
    ("skew_kl", {"alpha": 0.2, "direction": "reverse"}),
    ("taid", {"t": 0.4}),
]
every_loss = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda value: str(value).strip("{}"))


def heads(tokens=TOKENS, vocab=VOCAB, width=WIDTH, teacher_width=TEACHER_WIDTH, *, dtype=torch.float64, seed=0):
    """Student's hidden states and weight, with gradients, then the teacher's."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = draw(vocab, width), draw(vocab, teacher_width)
    hidden = draw(tokens, width), draw(tokens, teacher_width)
    made = [hidden[0], weights[0], hidden[1], weights[1]]
    return [x.to(dtype).requires_grad_(index < 2) for index, x in enumerate(made)]


def bias(seed=5, dtype=torch.float64):
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def some(tokens=TOKENS):
    return torch.arange(tokens) % 3 != 1


def words(tokens=TOKENS):
    labels = torch.randint(VOCAB, (tokens,), generator=torch.Generator().manual_seed(2))
    labels[::4] = -100
    return labels


def eager(parts, mask, name, options, *, biases=(None, None), softcap=None, labels=None, ce_weight=0.0, **common):
    """The same from whole logits, by the losses that take logits."""
    student, teacher = (F.linear(parts[i], parts[i + 1], biases[i // 2]) for i in (0, 2))
    if softcap is not None:
        student, teacher = (softcap * torch.tanh(logits / softcap) for logits in (student, teacher))
    loss = loss_by_name(name, **options)(student, teacher, mask, **common)
    if ce_weight:
        mask = torch.ones(len(student), dtype=torch.bool) if mask is None else mask
        loss = loss + ce_weight * F.cross_entropy(student[mask], labels[mask])
    return loss


def with_gradients(loss, inputs):
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


@every_loss
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_value_and_gradients_are_those_of_the_loss_on_whole_logits(name, options, temperature):
    parts, biases = heads(), (bias(5).requires_grad_(), bias(6))
    inputs = [*parts[:2], biases[0]]
    common = {"biases": biases, "softcap": 3.0, "labels": words(), "ce_weight": 0.7, "temperature": temperature}
    expected = with_gradients(eager(parts, some(), name, options, **common), inputs)
    biases = common.pop("biases")
    got = chunked_linear_distillation(
        *parts, some(), loss=name, loss_options=options, student_bias=biases[0], teacher_bias=biases[1], chunk_size=4,
        **common,
    )  # fmt: skip
    torch.testing.assert_close(with_gradients(got, inputs), expected, rtol=1e-12, atol=1e-12)


@every_loss
def test_float32_agrees_with_float64_to_a_hundred_thousandth(name, options):
    parts = heads(64, VOCAB)
    narrow = [part.detach().float().requires_grad_(part.requires_grad) for part in parts]
    wide = [part.detach().double().requires_grad_(part.requires_grad) for part in narrow]
    expected = with_gradients(eager(wide, None, name, options), wide[:2])
    loss = chunked_linear_distillation(*narrow, loss=name, loss_options=options)
    assert loss.dtype == torch.float32
    for got, right in zip(with_gradients(loss, narrow[:2]), expected, strict=True):
        assert (got.double() - right).norm() <= 1e-5 * right.norm()


@every_loss
def test_the_gradient_is_that_of_finite_differences(name, options):
    parts, shift = heads(5, 7, 3, 2), torch.zeros(7, dtype=torch.float64, requires_grad=True)

    def loss(hidden, weight, student_bias):
        return 0.5 * chunked_linear_distillation(
            hidden, weight, *parts[2:], some(5), loss=name, loss_options=options, student_bias=student_bias,
            softcap=4.0, labels=torch.tensor([3, 1, -100, 2, 6]), ce_weight=0.3, temperature=1.7, chunk_size=2,
        )  # fmt: skip

    if name == "taid":  # below 1 its target holds a part of the student fixed, which finite differences move
        options = {"t": 1.0}
    assert torch.autograd.gradcheck(loss, (*parts[:2], shift))


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 13, 1000, None])
def test_the_chunk_size_changes_nothing(chunk_size):
    parts = heads()
    one = with_gradients(chunked_linear_distillation(*parts, some(), loss="generalized_jsd", chunk_size=3), parts[:2])
    other = chunked_linear_distillation(*parts, some(), loss="generalized_jsd", chunk_size=chunk_size)
    torch.testing.assert_close(with_gradients(other, parts[:2]), one, rtol=1e-12, atol=1e-14)


def test_leading_axes_and_views_without_a_flat_shape_are_rows_like_any_other():
    parts = heads(12)
    student, teacher = (F.pad(parts[i].detach().reshape(3, 4, -1), (0, 0, 0, 1)) for i in (0, 2))
    student.requires_grad_()
    got = chunked_linear_distillation(student[:, :-1], parts[1], teacher[:, :-1], parts[3], some(12).reshape(3, 4))
    got.backward()
    flat = with_gradients(chunked_linear_distillation(*parts, some(12)), parts[:2])
    torch.testing.assert_close([got.detach(), student.grad[:, :-1].flatten(0, 1), parts[1].grad], flat)


def test_what_does_not_count_is_not_read_and_gets_no_gradient():
    parts = heads()
    clean = with_gradients(chunked_linear_distillation(*parts, some(), labels=words(), ce_weight=1.0), parts[:2])
    with torch.no_grad():
        parts[0][~some()], parts[2][~some()] = torch.nan, torch.inf
    labels = words().masked_fill(~some(), 10**6)
    dirty = with_gradients(chunked_linear_distillation(*parts, some(), labels=labels, ce_weight=1.0), parts[:2])
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    assert not dirty[1][~some()].any()


@pytest.mark.parametrize("tokens", [TOKENS, 0])
def test_nothing_to_count_is_zero_with_zero_gradients_and_a_graph(tokens):
    parts = heads(tokens)
    nothing = torch.zeros(tokens, dtype=torch.bool)
    loss = chunked_linear_distillation(
        *parts, nothing, labels=words(tokens), ce_weight=1.0, student_bias=bias().requires_grad_()
    )
    assert loss == 0
    assert loss.grad_fn is not None
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, parts[:2]))


def test_labels_alone_are_cross_entropy_and_the_teacher_is_not_read():
    parts = heads()
    with torch.no_grad():
        parts[2].fill_(torch.nan)
    loss = chunked_linear_distillation(*parts, kd_weight=0.0, labels=words(), ce_weight=1.0, chunk_size=4)
    expected = F.cross_entropy(parts[0] @ parts[1].T, words())
    torch.testing.assert_close(with_gradients(loss, parts[:2]), with_gradients(expected, parts[:2]))


def test_parts_of_an_accumulated_batch_add_up_to_the_whole():
    parts = heads(12)
    mask, labels = some(12), words(12).masked_fill(~some(12), -100)
    mask = labels != -100
    options = {"loss": "skew_kl", "ce_weight": 0.5, "kd_weight": 2.0, "temperature": 2.0}
    whole = with_gradients(chunked_linear_distillation(*parts, mask, labels=labels, **options), parts[:2])
    total = 0
    for piece in (slice(0, 1), slice(1, 6), slice(6, 12)):
        total = total + chunked_linear_distillation(
            parts[0][piece], parts[1], parts[2][piece], parts[3], mask[piece], labels=labels[piece],
            num_items=mask.sum(), **options,
        )  # fmt: skip
    torch.testing.assert_close(with_gradients(total, parts[:2]), whole, rtol=1e-12, atol=1e-14)


def test_equal_models_have_no_loss_and_no_gradient():
    hidden, weight, *_ = heads()
    for name, options in VARIANTS:
        loss = chunked_linear_distillation(hidden, weight, hidden, weight, loss=name, loss_options=options)
        assert abs(loss) < 1e-12
        assert all(gradient.abs().max() < 1e-12 for gradient in torch.autograd.grad(loss, (hidden, weight)))


def test_words_that_both_forbid_count_nothing():
    parts, shift = heads(), bias()
    shift[[3, 30]] = -torch.inf
    kept = [index for index in range(VOCAB) if index not in (3, 30)]
    for name, options in VARIANTS:
        common = {"loss": name, "loss_options": options}
        loss = chunked_linear_distillation(*parts, student_bias=shift, teacher_bias=shift, **common)
        fewer = [parts[0], parts[1][kept], parts[2], parts[3][kept]]
        expected = chunked_linear_distillation(*fewer, student_bias=shift[kept], teacher_bias=shift[kept], **common)
        torch.testing.assert_close(with_gradients(loss, parts[:2]), with_gradients(expected, parts[:2]))


def test_the_teacher_gets_no_gradient_and_each_part_may_be_frozen():
    parts = [part.detach().requires_grad_() for part in heads()]
    full = with_gradients(chunked_linear_distillation(*parts), parts[:2])
    assert torch.autograd.grad(chunked_linear_distillation(*parts), parts[2:], allow_unused=True) == (None, None)
    for frozen in (0, 1):
        some_parts = [part.detach() if index in (frozen, 2, 3) else part for index, part in enumerate(parts)]
        got = torch.autograd.grad(chunked_linear_distillation(*some_parts), parts[1 - frozen])[0]
        torch.testing.assert_close(got, full[2 - frozen], rtol=0, atol=0)


def test_without_gradients_the_value_is_the_same():
    parts = heads()
    with torch.no_grad():
        value = chunked_linear_distillation(*parts, loss="taid", loss_options={"t": 0.3})
    assert not value.requires_grad
    assert value == chunked_linear_distillation(*parts, loss="taid", loss_options={"t": 0.3}).detach()


def test_it_is_one_term_among_others_and_backward_may_be_repeated():
    parts = heads()
    _, *gradients = with_gradients(chunked_linear_distillation(*parts), parts[:2])
    loss = 3 * chunked_linear_distillation(*parts) + 2 * parts[1].sum()
    loss.backward()
    torch.testing.assert_close(parts[1].grad, 3 * gradients[1] + 2)
    for part in parts[:2]:
        part.grad = None
    loss = chunked_linear_distillation(*parts)
    for _ in range(3):
        loss.backward(retain_graph=True)
    torch.testing.assert_close([part.grad for part in parts[:2]], [3 * one for one in gradients])


def test_a_second_derivative_is_refused():
    parts = heads()
    (first,) = torch.autograd.grad(chunked_linear_distillation(*parts), parts[1], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        first.square().sum().backward()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(name, options, dtype):
    parts = [(0.5 * part.detach()).to(dtype).requires_grad_(part.requires_grad) for part in heads(256)]
    wide = [part.detach().double().requires_grad_(part.requires_grad) for part in parts]
    loss = chunked_linear_distillation(*parts, loss=name, loss_options=options, chunk_size=8)
    assert loss.dtype == torch.float32
    got, expected = (with_gradients(one, inputs[:2]) for one, inputs in
                     ((loss, parts), (eager(wide, None, name, options), wide)))  # fmt: skip
    assert [one.dtype for one in got[1:]] == [dtype, dtype]
    for one, right in zip(got, expected, strict=True):
        assert (one.double() - right).norm() <= 2e-2 * right.norm()


def test_autocast_multiplies_in_its_type_and_leaves_float32_gradients():
    parts = heads(64, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = chunked_linear_distillation(*parts, chunk_size=16)
    exact = chunked_linear_distillation(*parts)
    assert narrow.dtype == torch.float32
    assert narrow != exact
    assert abs(narrow - exact) < 1e-2 * exact
    for got, right in zip(*(torch.autograd.grad(one, parts[:2]) for one in (narrow, exact)), strict=True):
        assert got.dtype == torch.float32
        assert (got - right).norm() < 2e-2 * right.norm()


class Largest(TorchDispatchMode):
    """The bytes of the largest storage that any operation inside the block gave back."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return result


@every_loss
def test_no_array_is_larger_than_a_chunk_of_logits_or_the_gradients(name, options):
    width, vocab, chunk = 8, 1024, 16
    for tokens in (64, 512):
        parts = heads(tokens, vocab, width, dtype=torch.float32)
        with Largest() as largest:
            chunked_linear_distillation(*parts, loss=name, loss_options=options, chunk_size=chunk).backward()
        assert largest.bytes == 4 * max(chunk * vocab, tokens * width)
        assert parts[1].grad.shape == (vocab, width)


def test_the_gradient_of_the_weight_is_handed_over_and_not_copied():
    parts = heads(8, 1024, 8, dtype=torch.float32)
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape == (1024, 8):
                made.append(result.untyped_storage().data_ptr())
            return result

    with Watch():
        (0.5 * chunked_linear_distillation(*parts, chunk_size=4)).backward()
    storages = set(made) - {part.untyped_storage().data_ptr() for part in parts}
    assert storages == {parts[1].grad.untyped_storage().data_ptr()}


BAD = [
    ({"loss": "forwardkl"}, UnknownName, "Did you mean 'forward_kl'"),
    ({"loss_options": {"beta": 0.5}}, UnknownName, "option of forward_kl"),
    ({"loss": "generalized_jsd", "loss_options": {"bta": 0.5}}, UnknownName, "Did you mean 'beta'"),
    ({"loss": "generalized_jsd", "loss_options": {"beta": 1.0}}, ValueError, "strictly between 0 and 1"),
    ({"loss": "skew_kl", "loss_options": {"alpha": 1.5}}, ValueError, "alpha=1.5"),
    ({"loss": "skew_kl", "loss_options": {"direction": "forwards"}}, UnknownName, "Did you mean 'forward'"),
    ({"loss": "taid"}, ValueError, "needs"),
    ({"loss": "taid", "loss_options": {"t": -0.1}}, ValueError, "t=-0.1"),
    ({"temperature": 0.0}, ValueError, "temperature=0.0"),
    ({"softcap": 0.0}, ValueError, "softcap=0.0"),
    ({"softcap": (30.0, -1.0)}, ValueError, "softcap=-1.0"),
    ({"softcap": (1.0, 2.0, 3.0)}, ValueError, "one number for both"),
    ({"chunk_size": 0}, ValueError, "chunk_size=0"),
    ({"chunk_size": 2.5}, ValueError, "chunk_size=2.5"),
    ({"num_items": 0}, ValueError, "num_items=0"),
    ({"kd_weight": -1.0}, ValueError, "kd_weight=-1.0"),
    ({"ce_weight": float("nan")}, ValueError, "ce_weight=nan"),
    ({"ce_weight": 0.5}, ValueError, "needs labels"),
    ({"labels": torch.full((TOKENS,), VOCAB)}, ValueError, f"expected 0 to {VOCAB - 1}"),
    ({"labels": torch.full((TOKENS,), -1)}, ValueError, "labels holds -1"),
    ({"labels": torch.zeros(TOKENS)}, TypeError, "integer"),
    ({"labels": torch.zeros(3, dtype=torch.long)}, ValueError, "one per position"),
    ({"mask": torch.ones(TOKENS)}, TypeError, "bool"),
    ({"mask": torch.ones(3, dtype=torch.bool)}, ValueError, "mask has shape"),
    ({"student_bias": torch.zeros(3)}, ValueError, "student_bias has shape"),
    ({"teacher_weight": torch.randn(VOCAB + 1, TEACHER_WIDTH)}, ValueError, "different vocabularies"),
    ({"teacher_hidden": torch.randn(TOKENS + 1, TEACHER_WIDTH)}, ValueError, "the same positions"),
    ({"student_hidden": torch.randn(TOKENS, WIDTH + 1)}, ValueError, "expected [..., 6]"),
    ({"student_weight": torch.randint(9, (VOCAB, WIDTH), dtype=torch.int8)}, TypeError, "dequantized"),
    ({"student_weight": torch.zeros(0, WIDTH)}, ValueError, "expected [vocab, width]"),
]


@pytest.mark.parametrize(("wrong", "error", "says"), BAD, ids=[says for *_, says in BAD])
def test_what_cannot_be_meant_is_refused_by_name(wrong, error, says):
    names = ("student_hidden", "student_weight", "teacher_hidden", "teacher_weight")
    arguments = dict(zip(names, heads(dtype=torch.float32), strict=True)) | wrong
    with pytest.raises(error) as caught:
        chunked_linear_distillation(**arguments)
    assert says in str(caught.value)


@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_no_distribution_are_refused_with_their_owner_and_place(who, value):
    parts = [part.detach() for part in heads()]
    parts[0 if who == "student" else 2][7] = value
    for name, options in VARIANTS:
        with pytest.raises(ValueError, match=rf"the {who}'s hidden states.*\(1 rows are unusable, the first at \[7\]"):
            chunked_linear_distillation(*parts, loss=name, loss_options=options, chunk_size=5)
