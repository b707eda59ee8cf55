"""Preparing a text: whole plays held out, every byte counted, the same hash for the same text."""

import numpy as np
import pytest
import torch

from workbench.datasets.corpus import load_corpus
from workbench.training import TextTask, fixed_windows, random_windows


def test_both_parts_decode_to_whole_plays_and_no_play_is_in_both(task):
    text = task.prepare()
    parts = [text.tokenizer.decode(tokens) for tokens in (text.training, text.held_out)]
    plays = [document.text for document in load_corpus(task.corpus).documents]
    assert [sum(play in part for play in plays) for part in parts] == [2, 1]
    assert sum(map(len, parts)) == sum(map(len, plays))
    assert text.held_out_bytes == len(parts[1].encode())
    assert text.bytes_per_token == text.held_out_bytes / len(text.held_out)
    assert text.held_out.max() < text.vocab_size == len(text.tokenizer)


def test_byte_pairs_hold_more_bytes_a_token(task, plays):
    pairs = TextTask(corpus=str(plays), vocabulary=300, context=16, held_out=1).prepare()
    assert pairs.bytes_per_token > 1.1 * task.prepare().bytes_per_token
    assert pairs.held_out_bytes == task.prepare().held_out_bytes


def test_preparing_again_reads_the_cache_and_another_text_has_another_key(task, plays, tmp_path):
    text = task.prepare()
    written = (text.folder / "training.npy").stat().st_mtime_ns
    assert task.prepare().folder == text.folder
    assert (text.folder / "training.npy").stat().st_mtime_ns == written
    assert TextTask(corpus=str(plays), context=16, held_out=1, split_seed=1).prepare().key != text.key
    assert TextTask(corpus=str(plays), context=8, held_out=1).prepare().key == text.key  # the tokens are the same


def test_the_training_text_can_be_cut_while_the_held_out_text_stays(task, plays):
    cut = TextTask(corpus=str(plays), context=16, held_out=1, training_bytes=50_000).prepare()
    assert len(cut.tokenizer.decode(cut.training).encode()) == pytest.approx(50_000, abs=4)
    assert cut.held_out_bytes == task.prepare().held_out_bytes


def test_what_cannot_work_is_refused(task, plays):
    with pytest.raises(ValueError, match="context"):
        TextTask(context=0)
    with pytest.raises(ValueError, match="fewer than one window"):
        fixed_windows(np.arange(5), context=5)
    with pytest.raises(ValueError, match="fewer than one window"):
        random_windows(np.arange(5), context=5, batch_size=1, seed=0)


def test_fixed_windows_share_no_target_and_cover_the_text():
    windows = fixed_windows(np.arange(101), context=10)
    assert torch.equal(windows[:, 1:].flatten(), torch.arange(1, 101))
    few = fixed_windows(np.arange(101), context=10, count=3)
    assert few[:, 0].tolist() == [0, 30, 60]


def test_random_windows_are_windows_and_reach_both_ends():
    windows = next(random_windows(np.arange(20), context=4, batch_size=2000, seed=0))
    assert torch.equal(windows[:, 1:], windows[:, :-1] + 1)
    assert (windows.min().item(), windows.max().item()) == (0, 19)
