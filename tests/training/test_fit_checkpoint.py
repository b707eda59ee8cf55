"""A run that was stopped and taken up again equals one that was not, bit for bit."""

import pytest
import torch

from workbench.models.next_token import next_token_loss
from workbench.models.small_lm import ModelSize, initial_weights
from workbench.models.stacked_lm import LeanLM
from workbench.telemetry import Stopped, Watcher, watched
from workbench.training import distil, fit, random_windows

SIZE = ModelSize(16, 1, 1)
STEPS = 24
RECIPE = {"steps": STEPS, "lr": 0.02, "warmup": 0.1, "weight_decay": 0.1, "record_every": 3, "label": None}


class WithDropout(torch.nn.Module):
    """Draws from torch's random stream at every step, so that a lost state would show."""

    def __init__(self, text):
        super().__init__()
        self.inside = LeanLM(initial_weights(text.vocab_size, SIZE, seed=0), SIZE, context=text.context)
        self.dropout = torch.nn.Dropout(0.2)

    def forward(self, tokens):
        return self.dropout(self.inside(tokens))


@pytest.fixture
def text(task):
    return task.prepare()


def windows(text):
    return random_windows(text.training, context=text.context, batch_size=2, seed=0)


def bits(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def judge(text):
    held_out = next(random_windows(text.held_out, context=text.context, batch_size=4, seed=1))
    return lambda model: {"nats": next_token_loss(model, held_out).item()}


def train(text, model, **options):
    judged = {"evaluate": judge(text), "evaluate_every": 4}
    return fit(model, windows(text), next_token_loss, **RECIPE | judged | options)


def stopped_after(steps):
    done = []
    return {"stop": lambda: len(done) >= steps, "on_step": lambda step, known: done.append(step)}


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"patience": 2, "lr": 0.3}, {"precision": "bfloat16"}])
def test_a_run_stopped_twice_and_resumed_equals_one_that_was_not_stopped(text, tmp_path, options):
    whole, parts = WithDropout(text), None
    expected = train(text, whole, **options)
    file = tmp_path / "run" / "checkpoint.pt"
    for steps in (3, 7, None):
        parts = WithDropout(text)
        asked = {} if steps is None else stopped_after(steps)
        history = train(text, parts, checkpoint=file, **options, **asked)
        assert file.is_file() == (history.stopped == "asked")
    assert torch.equal(bits(parts), bits(whole))
    assert history.table.equals(expected.table)
    assert (history.steps, history.best_step, history.stopped) == (
        expected.steps, expected.best_step, expected.stopped,
    )  # fmt: skip


@pytest.mark.parametrize("loss", ["forward_kl", "taid"])
def test_a_distillation_goes_on_with_the_state_of_its_schedule(text, tmp_path, loss):
    teacher = LeanLM(initial_weights(text.vocab_size, SIZE, seed=9), SIZE, context=text.context)
    options = {"loss_options": {"alpha": 0.1}} if loss == "taid" else {}
    whole = WithDropout(text)
    expected = distil(whole, teacher, windows(text), loss, **RECIPE, **options)
    for asked in (stopped_after(10), {}):
        parts = WithDropout(text)
        found = distil(
            parts, teacher, windows(text), loss, **RECIPE, **options, checkpoint=tmp_path / "checkpoint.pt", **asked
        )
    assert torch.equal(bits(parts), bits(whole))
    assert found.table.equals(expected.table)
    assert ("t" in set(found.table["quantity"])) == (loss == "taid")


def test_whoever_watches_can_stop_it_and_the_checkpoint_stands_at_the_step_it_was_in(text, tmp_path):
    file, watcher = tmp_path / "checkpoint.pt", Watcher()

    def after(step, _known):
        if step == 5:
            watcher.stop()

    with watched(watcher), pytest.raises(Stopped):
        train(text, WithDropout(text), checkpoint=file, on_step=after)
    assert torch.load(file, weights_only=True)["step"] == 5
    whole, parts = WithDropout(text), WithDropout(text)
    train(text, whole)
    train(text, parts, checkpoint=file)
    assert torch.equal(bits(parts), bits(whole))


def test_a_process_that_was_killed_loses_at_most_the_steps_since_the_last_writing(text, tmp_path):
    file = tmp_path / "checkpoint.pt"

    def dies(step, _known):
        if step == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(text, WithDropout(text), checkpoint=file, checkpoint_every=4, on_step=dies)
    assert torch.load(file, weights_only=True)["step"] == 8
    whole, parts = WithDropout(text), WithDropout(text)
    expected = train(text, whole)
    assert train(text, parts, checkpoint=file).table.equals(expected.table)
    assert torch.equal(bits(parts), bits(whole))
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]  # no half file, no checkpoint of a finished run


def test_the_callers_random_stream_is_not_moved_by_a_resume(text, tmp_path):
    file = tmp_path / "checkpoint.pt"
    train(text, WithDropout(text), checkpoint=file, **stopped_after(3))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    model = WithDropout(text)
    torch.random.set_rng_state(before)
    train(text, model, checkpoint=file)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_checkpoint_of_another_run_is_refused_with_the_number_that_differs(text, tmp_path):
    file = tmp_path / "checkpoint.pt"
    train(text, WithDropout(text), checkpoint=file, **stopped_after(3))
    with pytest.raises(ValueError, match=r"with lr=0\.02 \(now 0\.01\): delete"):
        train(text, WithDropout(text), checkpoint=file, lr=0.01)
    file.write_bytes(b"half of a file")
    with pytest.raises(ValueError, match="cannot be read: delete"):
        train(text, WithDropout(text), checkpoint=file)
    with pytest.raises(ValueError, match="checkpoint_every"):
        train(text, WithDropout(text), checkpoint=file, checkpoint_every=0)
