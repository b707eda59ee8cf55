"""Talking: each term by hand, what trains and what does not, and that only the student is deployed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from workbench.models.splits import SplitModel, split_mlp
from workbench.runtime import generator, seeded
from workbench.training import fit
from workbench.training.communication_controls import Hint, SameModules
from workbench.training.interactive import (
    TERMS,
    UNLABELLED,
    InteractiveDistiller,
    interactive_loss,
    term_values,
    total,
)


def pair(**options):
    with seeded(0):
        student, teacher = split_mlp(6, 4, 3), split_mlp(6, 8, 5)
        return InteractiveDistiller(student, teacher, message_dim=5, **options)


@pytest.fixture
def batch():
    labels = torch.tensor([0, 1, 2, 0, UNLABELLED, UNLABELLED])
    return torch.randn(6, 6, generator=generator(1)), labels


def test_every_term_is_its_formula_written_out(batch):
    inputs, labels = batch
    model = pair()
    values = term_values(model(inputs), labels)
    lower, upper = model.student.states(inputs)
    theirs = model.teacher.states(inputs)
    ours, other = model.student_talk, model.teacher_talk
    proposed = ours.decode(other.encode(model.teacher.upper(other.decode(ours.encode(lower)))))
    task = F.cross_entropy(model.student.head(upper)[:4], labels[:4])
    interact = F.cross_entropy(model.student.head(proposed)[:4], labels[:4]) + F.mse_loss(upper, proposed)
    message = 1 - F.cosine_similarity(ours.encode(upper), other.encode(theirs[1])).mean()
    echoes = [(ours.decode(ours.encode(state)) - state).square().sum(1) / (state.square().sum(1) + 1e-6)
              for state in (lower, upper)]  # fmt: skip
    echoes += [(other.decode(other.encode(state)) - state).square().mean(1) for state in theirs]
    expected = {"task": task, "interact": interact, "message": message, "state": torch.stack(echoes).mean()}
    assert set(values) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value)


@pytest.mark.parametrize("term", TERMS)
def test_a_term_that_is_switched_off_is_not_there_and_the_others_stay(batch, term):
    inputs, labels = batch
    whole = term_values(pair()(inputs), labels)
    model = pair(weights={name: 1.0 for name in TERMS if name != term})
    values = term_values(model(inputs), labels)
    assert set(values) == set(whole) - {term}
    for name, value in values.items():
        torch.testing.assert_close(value, whole[name])


def test_without_any_term_the_loss_is_cross_entropy_on_the_labelled_alone(batch):
    inputs, labels = batch
    model = pair(weights={})
    torch.testing.assert_close(interactive_loss(model, batch), F.cross_entropy(model.student(inputs)[:4], labels[:4]))
    assert interactive_loss(model, (inputs[4:], labels[4:])) == 0


def test_weights_multiply_their_terms(batch):
    values = term_values(pair()(batch[0]), batch[1])
    loss = total(values, {"interact": 0.5, "message": 2.0, "state": 0.0})
    torch.testing.assert_close(loss, values["task"] + 0.5 * values["interact"] + 2 * values["message"])


def test_more_rounds_are_a_mean_of_rounds_each_begun_where_the_last_one_ended(batch):
    inputs, labels = batch
    model = pair(rounds=2)
    found = model(inputs)
    lower, upper = model.student.states(inputs)
    first = model.answer(lower)
    second = model.answer(first)
    torch.testing.assert_close(found["proposals"], torch.stack([model.student.head(one) for one in (first, second)], 1))
    torch.testing.assert_close(found["agreement"].mean(), (F.mse_loss(upper, first) + F.mse_loss(upper, second)) / 2)
    assert term_values(found, labels)["interact"].dim() == 0


def test_gradients_pass_through_a_frozen_teacher_whose_weights_get_none(batch):
    model = pair(weights={"interact": 1.0})
    before = copy.deepcopy(model.teacher.state_dict())
    # Only the proposals: whatever reaches these went through the teacher's own layers.
    model(batch[0])["proposals"].square().sum().backward()
    for part in (model.teacher_talk.decoder, model.student_talk.encoder, model.student.lower):
        assert all(weight.grad.abs().sum() > 0 for weight in part.parameters())
    assert all(weight.grad is None and not weight.requires_grad for weight in model.teacher.parameters())
    fit(model, [batch], interactive_loss, steps=3, lr=0.01, label=None)
    for name, weight in model.teacher.state_dict().items():
        assert torch.equal(weight, before[name])


def test_a_teacher_that_may_learn_does(batch):
    model = pair(freeze_teacher=False)
    before = copy.deepcopy(model.teacher.state_dict())
    fit(model, [batch], interactive_loss, steps=3, lr=0.01, label=None)
    changed = {name for name, weight in model.teacher.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"upper.0.weight", "upper.0.bias"}  # through its answers; it is asked above its lower layer


def test_a_frozen_teacher_stays_in_evaluation_mode_with_its_statistics(batch):
    with seeded(0):
        lower = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        upper = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        model = InteractiveDistiller(split_mlp(6, 4, 3), SplitModel(lower, upper, hidden_dim=8), message_dim=5)
    before = copy.deepcopy(model.teacher.state_dict())
    model.train()
    assert model.student.training
    assert not any(part.training for part in model.teacher.modules())
    assert torch.equal(model(batch[0])["proposals"], model(batch[0])["proposals"])  # nothing is dropped
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[name])


def test_silence_does_not_make_messages_consistent(batch):
    model = pair(weights={"message": 1.0})
    with torch.no_grad():
        for module in (model.student_talk, model.teacher_talk):
            for weight in module.encoder.parameters():
                weight.zero_()
    assert term_values(model(batch[0]), batch[1])["message"] == 1  # the worst of unrelated messages, not 0


def test_the_teachers_message_takes_no_gradient_from_being_compared(batch):
    model = pair(weights={"message": 1.0})
    model(batch[0])["message"].sum().backward()
    assert all(weight.grad is None for weight in model.teacher_talk.parameters())
    assert model.student_talk.encoder[0].weight.grad.abs().sum() > 0


def test_state_consistency_trains_the_modules_and_never_the_states(batch):
    model = pair(weights={"state": 1.0})
    model(batch[0])["state"].sum().backward()
    assert all(weight.grad is None for weight in model.student.parameters())
    assert all(weight.grad is not None for weight in model.student_talk.parameters())
    assert all(weight.grad is not None for weight in model.teacher_talk.parameters())


def test_learning_to_talk_on_digits_does_not_collapse():
    from workbench.training.downstream import digits_task
    from workbench.training.interactive_grid import TALK, make_model

    task = digits_task("parity", (7,))
    draw = task.draws[0]
    model = make_model(TALK, task, 32, 1, 7).calibrate(draw.lower[draw.pool], draw.upper[draw.pool])
    labels = torch.full_like(draw.labels, UNLABELLED)
    labels[draw.pool[:80]] = draw.labels[draw.pool[:80]]
    rows = draw.pool
    whole = (draw.inputs[rows], labels[rows], draw.lower[rows], draw.upper[rows])
    fit(model, [whole], interactive_loss, steps=150, lr=3e-3, label=None)
    with torch.no_grad():
        state = model.student.states(draw.inputs[draw.test])[1]
        said = F.normalize(model.student_talk.encode(state), dim=1)
    assert state.std(0).mean() > 0.1
    assert said.std(0).norm() > 0.3  # directions differ between inputs: all equal would be 0, all different 1


def test_the_deployed_student_has_no_trace_of_the_modules(batch):
    model = pair()
    fit(model, [batch], interactive_loss, steps=3, lr=0.01, label=None)
    names = set(model.student.state_dict())
    fresh = split_mlp(6, 4, 3)
    assert names == set(fresh.state_dict())
    fresh.load_state_dict(model.student.state_dict())
    assert torch.equal(fresh(batch[0]), model(batch[0])["logits"])
    assert not any("teacher." in name or "_frozen" in name for name in model.state_dict())  # the teacher is not saved


def test_known_states_of_the_teacher_give_the_same_as_reading(batch):
    model = pair()
    read, known = model(batch[0]), model(batch[0], *model.teacher.states(batch[0]))
    for name in read:
        torch.testing.assert_close(read[name], known[name])


def test_the_frozen_teacher_goes_where_the_module_goes():
    model = pair().double()
    assert {weight.dtype for weight in model.teacher.parameters()} == {torch.float64}


def test_the_control_has_exactly_the_parameters_of_a_talk():
    model = pair()
    with seeded(0):
        student, teacher = split_mlp(6, 4, 3), split_mlp(6, 8, 5)
    for hints in (True, False):
        control = SameModules(student, teacher, message_dim=5, hints=hints)
        assert control.added_parameters == model.added_parameters == (4 * 5 + 5) + (5 * 4 + 4) + (8 * 5 + 5) + 5 * 8 + 8


def test_the_self_talk_never_asks_the_teacher(batch):
    with seeded(0):
        student, teacher = split_mlp(6, 4, 3), split_mlp(6, 8, 5)
        control = SameModules(student, teacher, message_dim=5, hints=False)
    nothing = torch.full((6, 8), torch.nan)
    found = control(batch[0], nothing, nothing)
    assert all(tensor.isfinite().all() for tensor in found.values())


def test_a_hint_that_is_met_costs_nothing(batch):
    with seeded(0):
        student = split_mlp(6, 4, 3)
        hint = Hint(student, SplitModel(nn.Identity(), nn.Identity(), hidden_dim=4))
    lower, upper = (state.detach() for state in student.states(batch[0]))
    hint.calibrate(lower, upper)
    with torch.no_grad():
        for layer, centre, scale in (
            (hint.lower, hint.lower_centre, hint.lower_scale), (hint.upper, hint.upper_centre, hint.upper_scale)
        ):  # fmt: skip
            layer.weight.copy_(torch.eye(4) / scale)
            layer.bias.copy_((-centre / scale)[0])
    torch.testing.assert_close(hint(batch[0], lower, upper)["hint"], torch.zeros(6), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"mesage": 1.0}}, "Did you mean 'message'"),
        ({"weights": {"state": -1.0}}, "must be 0 .switched off. or above"),
        ({"rounds": 0}, "rounds=0"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pair(**options)
    with pytest.raises(ValueError, match="no head"):
        InteractiveDistiller(split_mlp(4, 4, None), split_mlp(4, 4, 2))
