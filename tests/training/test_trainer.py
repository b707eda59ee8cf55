"""Distillation in the Hugging Face Trainer, real models on real text, against the plain loop."""

import copy
import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import Gemma2Config, Gemma2ForCausalLM, Trainer, TrainerCallback, TrainingArguments

from workbench.files import PROJECT
from workbench.losses import LOSSES, TAIDLoss, forward_kl, taid
from workbench.losses.decoupled import decoupled_kd
from workbench.models.small_lm import ModelSize, small_lm
from workbench.runtime import seeded
from workbench.training import distillation_loss_for_trainer, fixed_windows

STUDENT, TEACHER = ModelSize(16, 1, 1), ModelSize(32, 1, 2)
CONTEXT = 12
NEEDED = {"skew_kl": {"alpha": 0.1}, "taid": {"t_start": 0.3}}


@pytest.fixture
def text(task):
    return task.prepare()


@pytest.fixture
def rows(text):
    """Windows of real text, of whose labels some do not count, in each row another number."""
    windows = fixed_windows(text.training, context=CONTEXT - 1, count=16)
    labels = windows.clone()
    for row in range(len(labels)):
        labels[row, : row % 7] = -100
    return [{"input_ids": window, "labels": label} for window, label in zip(windows, labels, strict=True)]


def model(text, size=STUDENT, seed=0, vocabulary=None):
    return small_lm(vocabulary or text.vocab_size, size, context=CONTEXT, seed=seed)


def trained(student, rows, folder, loss, teacher, *, callbacks=(), trainer=Trainer, arguments=None, **options):
    """A trainer that has trained ``student`` for three steps of eight rows with plain gradient descent."""
    distillation = distillation_loss_for_trainer(loss, teacher, **options)
    settings = {
        "max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 0.5, "lr_scheduler_type": "constant",
        "optim": "sgd", "max_grad_norm": 0.0, "report_to": [], "disable_tqdm": True, "save_strategy": "no",
        "use_cpu": True, "seed": 0, "logging_steps": 1, "dataloader_pin_memory": False,
    } | (arguments or {})  # fmt: skip
    made = trainer(
        student, TrainingArguments(str(folder), **settings), train_dataset=rows, eval_dataset=rows,
        compute_loss_func=distillation, callbacks=[distillation, *callbacks],
    )  # fmt: skip
    made.train()
    return made, distillation


def weights(network):
    return [weight.detach().clone() for weight in network.parameters()]


def assert_same(first, second, **tolerance):
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, **(tolerance or {"rtol": 1e-4, "atol": 1e-5}))


@pytest.mark.parametrize(("ce_weight", "kd_weight"), [(0.0, 1.0), (0.3, 0.7), (1.0, 0.0)])
def test_a_step_is_the_gradient_of_the_formula(text, rows, tmp_path, ce_weight, kd_weight):
    student, teacher = model(text), model(text, TEACHER, seed=1)
    expected = copy.deepcopy(student)
    trained(
        student, rows[:8], tmp_path, "forward_kl", teacher, arguments={"max_steps": 1},
        ce_weight=ce_weight, kd_weight=kd_weight, temperature=2.0,
    )  # fmt: skip
    tokens = torch.stack([row["input_ids"] for row in rows[:8]])
    labels = torch.stack([row["labels"] for row in rows[:8]])[:, 1:]
    logits = expected(input_ids=tokens).logits[:, :-1]
    wanted = kd_weight * forward_kl(logits, teacher(input_ids=tokens).logits[:, :-1], labels != -100, temperature=2.0)
    wanted = wanted + ce_weight * F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    wanted.backward()
    with torch.no_grad():
        for weight in expected.parameters():
            weight -= 0.5 * weight.grad
    assert_same(student, expected)


@pytest.mark.parametrize("loss", ["forward_kl", "generalized_jsd", "taid"])
def test_one_batch_of_eight_equals_four_of_two_however_many_labels_count_in_each(text, rows, tmp_path, loss):
    teacher = model(text, TEACHER, seed=1)
    whole, parts = model(text), model(text)
    options = {"loss_options": NEEDED.get(loss), "ce_weight": 0.2}
    first, _ = trained(whole, rows, tmp_path, loss, teacher, **options)
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    second, _ = trained(parts, rows, tmp_path, loss, teacher, arguments=split, **options)
    assert_same(whole, parts)
    losses = [
        [entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in (first, second)
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("name", [*LOSSES, "decoupled_kd", "uld"])
def test_every_loss_by_name_trains(text, rows, tmp_path, name):
    student, teacher = model(text), model(text, TEACHER, seed=1)
    before = weights(student)
    made, _ = trained(student, rows, tmp_path, name, teacher, loss_options=NEEDED.get(name))
    assert any(not torch.equal(one, other) for one, other in zip(before, student.parameters(), strict=True))
    assert all(torch.isfinite(weight).all() for weight in student.parameters())
    assert torch.isfinite(torch.tensor(made.state.log_history[-1]["train_loss"]))


def test_own_losses_are_taken_and_their_means_become_shares_of_the_whole_batch(text, rows, tmp_path):
    def own(student_logits, teacher_logits, mask):
        log_q, log_p = student_logits[mask].log_softmax(-1), teacher_logits[mask].log_softmax(-1)
        return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")

    teacher = model(text, TEACHER, seed=1)
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    networks = [model(text) for _ in range(3)]
    trained(networks[0], rows, tmp_path, "forward_kl", teacher)
    trained(networks[1], rows, tmp_path, own, teacher, arguments=split)
    trained(networks[2], rows, tmp_path, forward_kl, teacher, arguments=split)  # takes num_items
    assert_same(networks[0], networks[1])
    assert_same(networks[0], networks[2])


def test_a_part_of_a_batch_where_nothing_counts_adds_nothing_to_an_own_loss(text, rows, tmp_path):
    def own(student_logits, teacher_logits, mask):
        return (student_logits - teacher_logits)[mask].square().mean()  # NaN where nothing counts

    silent = [
        row | {"labels": torch.full_like(row["labels"], -100)} if one % 2 else row for one, row in enumerate(rows)
    ]
    student = model(text)
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    trained(student, silent, tmp_path, own, model(text, TEACHER, seed=1), arguments=split)
    assert all(torch.isfinite(weight).all() for weight in student.parameters())


@pytest.mark.parametrize(
    ("bound", "named"),
    [
        (partial(forward_kl, temperature=3.0), ("forward_kl", {"temperature": 3.0})),
        (partial(decoupled_kd, beta=2.0), ("decoupled_kd", {"loss_options": {"beta": 2.0}})),
        (partial(taid, t=0.3), ("taid", {"loss_options": {"t_start": 0.3, "t_end": 0.3}})),
    ],
)
def test_what_is_bound_to_a_loss_stays_bound(text, rows, tmp_path, bound, named):
    teacher, first, second = model(text, TEACHER, seed=1), model(text), model(text)
    trained(first, rows, tmp_path, bound, teacher)
    trained(second, rows, tmp_path, named[0], teacher, **named[1])
    assert_same(first, second)


def test_the_teacher_is_asked_in_evaluation_mode_and_left_as_it_was(text, rows, tmp_path):
    student, teacher = model(text), model(text, TEACHER, seed=1).train()
    before, modes = weights(teacher), []
    teacher.register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
    trained(student, rows, tmp_path, "reverse_kl", teacher)
    assert set(modes) == {(False, False)}
    assert teacher.training
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, teacher.parameters(), strict=True))


def test_checkpoints_hold_the_student_alone_and_training_goes_on_where_taid_stood(text, rows, tmp_path):
    teacher = model(text, TEACHER, seed=1)
    options = {"loss_options": {"t_start": 0.2, "alpha": 0.3}}
    through, broken = model(text), model(text)
    whole, first = trained(through, rows, tmp_path / "whole", "taid", teacher, arguments={"max_steps": 6}, **options)
    saving = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    trained(broken, rows, tmp_path / "cut", "taid", teacher, arguments=saving, **options)
    folder = tmp_path / "cut" / "checkpoint-3"
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as saved:
        assert set(saved.keys()) <= set(broken.state_dict())
    assert json.loads((folder / "trainer_state.json").read_text())["stateful_callbacks"]["TAIDSchedule"]["t"] > 0.2
    resumed = model(text)
    distillation = distillation_loss_for_trainer("taid", teacher, **options)
    again = Trainer(
        resumed, whole.args, train_dataset=rows, compute_loss_func=distillation, callbacks=[distillation]
    )  # fmt: skip
    again.train(resume_from_checkpoint=str(folder))
    assert distillation.t == first.t
    assert_same(through, resumed)


def test_taid_moves_once_per_optimiser_step_and_evaluation_does_not_move_it(text, rows, tmp_path):
    teacher = model(text, TEACHER, seed=1)
    arguments = {
        "max_steps": 5, "gradient_accumulation_steps": 4, "per_device_train_batch_size": 2,
        "eval_strategy": "steps", "eval_steps": 1,
    }  # fmt: skip
    made, distillation = trained(
        model(text), rows, tmp_path, "taid", teacher,
        loss_options={"t_start": 0.5, "adaptive": False}, arguments=arguments,
    )  # fmt: skip
    logged = [entry["taid_t"] for entry in made.state.log_history if "taid_t" in entry]
    assert logged == pytest.approx([0.5, 0.7, 0.8, 0.9, 1.0])  # the first divergence is only stored
    assert distillation.t == 1.0
    made.evaluate()
    assert distillation.t == 1.0


def test_evaluation_reports_the_same_loss(text, rows, tmp_path):
    student, teacher = model(text), model(text, TEACHER, seed=1)
    made, _ = trained(student, rows, tmp_path, "forward_kl", teacher)
    tokens = torch.stack([row["input_ids"] for row in rows])
    labels = torch.stack([row["labels"] for row in rows])[:, 1:]
    student.eval()
    with torch.no_grad():
        logits = [network(input_ids=tokens).logits[:, :-1] for network in (student, teacher)]
    each = [forward_kl(*(one[part] for one in logits), labels[part] != -100) for part in (slice(8), slice(8, 16))]
    assert made.evaluate()["eval_loss"] == pytest.approx(float(sum(each) / 2), rel=1e-4)


def test_a_teacher_of_another_tokenizer_reads_its_own_columns(text, rows, tmp_path):
    student, teacher = model(text), model(text, TEACHER, seed=1, vocabulary=text.vocab_size + 9)
    seen = []
    teacher.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    longer = fixed_windows(text.training, context=CONTEXT, count=16)
    own = [row | {"teacher_input_ids": ids, "teacher_labels": ids} for row, ids in zip(rows, longer, strict=True)]
    trained(student, own, tmp_path, "uld", teacher, arguments={"remove_unused_columns": False})
    assert seen[0]["input_ids"].shape == (8, CONTEXT + 1)
    assert "labels" not in seen[0]
    with pytest.raises(ValueError, match="uld"):
        trained(model(text), rows, tmp_path, "forward_kl", teacher)


def test_a_classifier_needs_no_shift(tmp_path):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)

    class Classifier(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, inputs, labels=None):
            return {"logits": self.layer(inputs)}

    rows = [{"inputs": one, "labels": 0} for one in torch.randn(32, 4, generator=generator)]
    inputs = torch.stack([row["inputs"] for row in rows])
    before = forward_kl(student(inputs), teacher(inputs)).item()
    trained(
        Classifier(student), rows, tmp_path, "forward_kl", Classifier(teacher), arguments={"max_steps": 40}
    )  # fmt: skip
    assert forward_kl(student(inputs), teacher(inputs)).item() < 0.3 * before


@pytest.mark.parametrize("loss", ["forward_kl", "generalized_jsd", "taid"])
def test_chunked_trains_as_full_logits_do_without_making_them(text, rows, tmp_path, loss):
    student, teacher = model(text), model(text, TEACHER, seed=1)
    plain = copy.deepcopy(student)
    sizes = []
    for network in (student, teacher):
        network.lm_head.register_forward_hook(lambda module, args, output: sizes.append(output.shape[1]))
    options = {"ce_weight": 0.5, "temperature": 2.0, "loss_options": NEEDED.get(loss)}
    one, first = trained(student, rows, tmp_path, loss, teacher, chunked=True, chunk_size=5, **options)
    assert set(sizes) == {1}
    other, second = trained(plain, rows, tmp_path, loss, teacher, **options)
    assert_same(student, plain)
    assert first.t == pytest.approx(second.t, nan_ok=True)
    assert one.evaluate()["eval_loss"] == pytest.approx(other.evaluate()["eval_loss"], rel=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
def test_chunked_knows_capped_logits_and_mixed_precision(rows, tmp_path, bf16):
    build = Gemma2Config(
        vocab_size=200, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, final_logit_softcapping=2.0,
    )  # fmt: skip
    with seeded(0):
        student, teacher = Gemma2ForCausalLM(build), Gemma2ForCausalLM(build)
    with torch.no_grad():  # so large that the cap is felt
        for network in (student, teacher):
            network.model.embed_tokens.weight.mul_(10)
    networks = [student, copy.deepcopy(student)]
    losses = []
    for network, chunked in zip(networks, (True, False), strict=True):
        arguments = {"bf16": bf16, "learning_rate": 0.05}
        made, _ = trained(network, rows, tmp_path, "forward_kl", teacher, chunked=chunked, arguments=arguments)
        losses.append([entry["loss"] for entry in made.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2 if bf16 else 1e-5)
    assert_same(*networks, rtol=1e-2 if bf16 else 1e-4, atol=1e-2 if bf16 else 1e-5)


def test_after_training_the_student_and_its_copies_answer_as_ever(text, rows, tmp_path):
    student, teacher = model(text), model(text, TEACHER, seed=1)
    copies, shapes = [], []

    class Copies(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **known):
            copies.append(copy.deepcopy(model).train())
            shapes.append(copies[-1](input_ids=rows[0]["input_ids"][None]).logits.shape[1])

    trained(student, rows, tmp_path, "forward_kl", teacher, chunked=True, callbacks=[Copies()])
    assert shapes == [CONTEXT] * 3
    assert student.train()(input_ids=rows[0]["input_ids"][None]).logits.shape[1] == CONTEXT


def test_chunked_notices_a_model_that_does_more_than_its_output_layer_says(text, rows, tmp_path):
    student, teacher = model(text), model(text, TEACHER, seed=1)
    student.lm_head.register_forward_hook(lambda module, args, output: 0.5 * output)
    with pytest.raises(ValueError, match="does more to its logits"):
        trained(student, rows, tmp_path, "forward_kl", teacher, chunked=True)
    with pytest.raises(ValueError, match="Linear cannot be distilled with chunked=True"):
        trained(torch.nn.Linear(2, 2), rows, tmp_path, "forward_kl", teacher, chunked=True)


def test_half_of_the_wiring_is_an_error_and_never_a_training_without_teacher(text, rows, tmp_path):
    student, distillation = model(text), distillation_loss_for_trainer("forward_kl", model(text, TEACHER, seed=1))
    args = TrainingArguments(str(tmp_path), max_steps=1, report_to=[], use_cpu=True, dataloader_pin_memory=False)
    with pytest.raises(RuntimeError, match="callbacks"):
        Trainer(student, args, train_dataset=rows, compute_loss_func=distillation).train()
    with pytest.raises(RuntimeError, match="compute_loss_func"):
        Trainer(student, args, train_dataset=rows, callbacks=[distillation]).train()
    bare = [{"input_ids": row["input_ids"]} for row in rows]
    with pytest.raises(ValueError, match="no labels"):
        Trainer(student, args, train_dataset=bare, compute_loss_func=distillation, callbacks=[distillation]).train()


def test_labels_that_never_count_move_nothing(text, rows, tmp_path):
    student = model(text)
    before = weights(student)
    silent = [row | {"labels": torch.full_like(row["labels"], -100)} for row in rows]
    trained(student, silent, tmp_path, "forward_kl", model(text, TEACHER, seed=1), ce_weight=1.0)
    assert all(torch.equal(one, other) for one, other in zip(before, student.parameters(), strict=True))


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        ("forward_lk", {}, "Did you mean 'forward_kl'"),
        ("forward_kl", {"ce_weight": -1.0}, "ce_weight"),
        ("forward_kl", {"kd_weight": 0.0}, "both 0"),
        ("forward_kl", {"temperature": 0.0}, "temperature"),
        ("forward_kl", {"loss_options": {"reduction": "sum"}}, "the trainer counts the tokens"),
        ("forward_kl", {"loss_options": {"temperature": 2.0}}, "an argument of its own"),
        ("skew_kl", {"loss_options": {"alhpa": 0.1}}, "Did you mean 'alpha'"),
        ("skew_kl", {"loss_options": {"alpha": 2.0}}, "alpha"),
        ("taid", {"loss_options": {"t": 0.5}}, "t_start"),
        ("taid", {"loss_options": {"t_strat": 0.5}}, "Did you mean 't_start'"),
        ("forward_kl", {"chunk_size": 5}, "chunked=True"),
        ("total_variation", {"chunked": True}, "total_variation"),
        (forward_kl, {"chunked": True}, "by name"),
        (TAIDLoss(), {}, "loss='taid'"),
        (lambda student, teacher, mask: 0.0, {"temperature": 2.0}, "set it there"),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(loss, options, message):
    with pytest.raises(ValueError, match=message):
        distillation_loss_for_trainer(loss, torch.nn.Linear(2, 2), **options)


def test_the_example_in_the_readme_runs(tmp_path, monkeypatch):
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    (code,) = [
        block for block in re.findall(r"^```python\n(.*?)^```", readme, flags=re.M | re.S) if "Trainer(" in block
    ]
    assert len(code.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    losses = [entry["loss"] for entry in names["trainer"].state.log_history if "loss" in entry]
    assert losses
    assert losses[-1] < losses[0]
    assert Path(names["trainer"].args.output_dir).resolve().is_relative_to(tmp_path)
