"""Small real models and a vocabulary that tests of scorers share."""

import torch
from torch import nn

from workbench.datasets.corpus import Corpus, Document
from workbench.datasets.vocabulary import train_vocabulary
from workbench.models.small_lm import ModelSize, small_lm

TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n"


def vocabulary():
    """Bytes and byte pairs of two lines of Hamlet."""
    corpus = Corpus("hamlet", (Document("hamlet", TEXT * 20, "tragedy"),))
    return train_vocabulary(corpus, 280)


def untrained(tokenizer, *, context=256, seed=0):
    """A Llama of two layers with random weights, none of whose predictions is like another."""
    return small_lm(len(tokenizer), ModelSize(32, 2, 2), context=context, seed=seed).eval()


def indifferent(tokenizer, *, context=256):
    """The same network, whose every token is as likely as any other."""
    model = untrained(tokenizer, context=context)
    with torch.no_grad():
        nn.init.zeros_(model.model.norm.weight)
    return model
