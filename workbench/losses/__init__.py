r"""What pulls a student towards a teacher, in one convention: every loss, by its usual name.

Losses on logits ``[..., vocab]`` of one vocabulary share one signature, ``loss(student_logits,
teacher_logits, mask=None, *, <own options>, temperature=1.0, scale_by_t2=True, reduction="token_mean",
num_items=None)``, and :data:`LOSSES`; p is the teacher's distribution, q the student's, z logits, T the
temperature. Divergences are in nats per token.

===========================  =========================================  ======================  ========================
name                         per token                                  paper                   when to use it
===========================  =========================================  ======================  ========================
forward_kl                   KL(p || q)                                 Hinton et al. 2015      the default: covers all
                                                                                                the teacher finds likely
reverse_kl                   KL(q || p)                                 Gu et al. 2024          student too small to
                                                                        (MiniLLM)               cover all: keeps to
                                                                                                modes
jeffreys                     KL(p || q) + KL(q || p)                    Jeffreys 1946           both errors matter alike
symmetric_kl                 (1 - w) KL(p || q) + w KL(q || p)          Ko et al. 2024          to weigh the two errors
                                                                        (baseline)
generalized_jsd              b KL(p || m) + (1 - b) KL(q || m), m = b   Agarwal et al. 2024     on-policy text,
                             p + (1 - b) q                              (GKD)                   outliers: bounded, never
                                                                                                infinite
skew_kl                      KL(p || a p + (1 - a) q), or reverse KL(q  Ko et al. 2024          a KL with bounded
                             || a q + (1 - a) p)                        (DistiLLM)              gradients, a near 0.1
adaptive_kl                  (g_h KL(p || q) + g_t KL(q || p)) / (g_h   Wu et al. 2025 (AKL)    short trainings that
                             + g_t), g = sum abs(p - q) in the head                             must learn head and tail
                             and the tail of p
total_variation              0.5 sum abs(p - q)                         Wen et al. 2023         to report; its gradient
                                                                        (f-distill)             dies without overlap
logit_mse                    mean over words of (z_q - z_p)^2           Kim et al. 2021         classifiers; noisy
                                                                                                labels
dist                         1 - corr(p, q) over words, plus the same   Huang et al. 2022       a much stronger teacher:
                             over the batch                             (DIST)                  relations, not values
taid                         KL(softmax((1-t) z_q + t z_p) || q)        Shing et al. 2025       teacher much larger than
                                                                        (TAID)                  the student
===========================  =========================================  ======================  ========================

With other inputs, options of the same names where they make sense; those of :data:`NEEDS_LABELS` take ``labels``
third:

===========================  =========================================  ======================  ========================
name                         per token                                  paper                   when to use it
===========================  =========================================  ======================  ========================
decoupled_kd                 a KL of (target, all others) + b KL among  Zhao et al. 2022 (DKD)  classes: a sure teacher
                             the others; takes labels                                           still teaches the rest
topk_kl                      KL over the k words kept and one bucket    forward_kl, cut off     a teacher's answers
                             for all others                                                     stored on disk
uld                          sum abs(q_(v) - p_(v)), both sorted        Boizard et al. 2024     two vocabularies
                                                                        (ULD)
CurriculumTemperature        T^2 KL(p || q), T learnt against the       Li et al. 2023 (CTKD)   instead of a search for
                             student                                                            the temperature
TAIDLoss                     taid with TAIDSchedule, which moves t      Shing et al. 2025       taid, all in one
                                                                        (TAID)
bd_kd                        w_f KL(p || q) + w_r KL(q || p), weighed   Amara et al. 2022       teacher and student
                             by whose entropy is higher                 (BD-KD)                 learn together;
                                                                                                calibration
mutual_learning              mean of KL(p_other || p_self), one loss    Zhang et al. 2018       no teacher: equals teach
                             per network                                (DML)                   each other
chunked_linear_distillation  one of the divergences above from hidden   as the divergence's     vocabularies of tens of
                             states and output layers, [tokens, vocab]                          thousands of words
                             never whole
===========================  =========================================  ======================  ========================

On hidden states, averages over what the mask lets through:

===========================  =========================================  ======================  ========================
name                         what it compares                           paper                   when to use it
===========================  =========================================  ======================  ========================
fitnet                       mean (W h_s - h_t)^2                       Romero et al. 2015      hints at a middle layer;
                                                                        (FitNets)               W is trained too
hidden_cosine                1 - cos(W h_s, h_t)                        Sanh et al. 2019        as fitnet, whatever the
                                                                        (DistilBERT)            length of a state
attention_transfer           squared distance of normalised mean        Zagoruyko and           convolutional maps:
                             abs(channel)^p                             Komodakis 2017          where they look
minilm_relations             KL of softmax(x y' / sqrt(d)) of queries   Wang et al. 2020, 2021  transformers of other
                             and keys, of values                        (MiniLM)                widths and heads
relational_kd                smooth L1 of distances of pairs and        Park et al. 2019 (RKD)  embeddings, retrieval
                             angles of triples
similarity_preserving        mean squared distance of normalised Gram   Tung and Mori 2019      widths differ, no
                             matrices                                   (SP)                    projection wanted
cka                          1 - linear centred kernel alignment        Kornblith et al. 2019   to compare layers;
                                                                        (CKA)                   turning changes nothing
===========================  =========================================  ======================  ========================

``standardize_logits`` (Sun et al. 2024) brings logits to one scale before any of them. ``loss_by_name`` gives
those of ``LOSSES`` and ``NEEDS_LABELS`` with options set.
"""

from workbench.losses.adaptive import adaptive_kl
from workbench.losses.bd_kd import BDKDTerms, bd_kd
from workbench.losses.chunked import chunked_linear_distillation
from workbench.losses.cross_tokenizer import uld
from workbench.losses.curriculum import CurriculumTemperature
from workbench.losses.decoupled import decoupled_kd
from workbench.losses.divergence import forward_kl, jeffreys, reverse_kl, symmetric_kl, total_variation
from workbench.losses.hidden_states import (
    attention_transfer,
    fitnet,
    hidden_cosine,
    hidden_projection,
    minilm_relations,
)
from workbench.losses.matching import dist, logit_mse, standardize_logits
from workbench.losses.mixture import generalized_jsd, skew_kl
from workbench.losses.mutual import mutual_learning
from workbench.losses.names import LOSSES, NEEDS_LABELS, loss_by_name, loss_options
from workbench.losses.reduction import REDUCTIONS, reduce_tokens
from workbench.losses.relations import cka, relational_kd, similarity_preserving
from workbench.losses.sparse import topk_kl
from workbench.losses.taid import TAIDLoss, taid, taid_target
from workbench.losses.taid_schedule import TAIDSchedule

__all__ = [
    "LOSSES",
    "NEEDS_LABELS",
    "REDUCTIONS",
    "BDKDTerms",
    "CurriculumTemperature",
    "TAIDLoss",
    "TAIDSchedule",
    "adaptive_kl",
    "attention_transfer",
    "bd_kd",
    "chunked_linear_distillation",
    "cka",
    "decoupled_kd",
    "dist",
    "fitnet",
    "forward_kl",
    "generalized_jsd",
    "hidden_cosine",
    "hidden_projection",
    "jeffreys",
    "logit_mse",
    "loss_by_name",
    "loss_options",
    "minilm_relations",
    "mutual_learning",
    "reduce_tokens",
    "relational_kd",
    "reverse_kl",
    "similarity_preserving",
    "skew_kl",
    "standardize_logits",
    "symmetric_kl",
    "taid",
    "taid_target",
    "topk_kl",
    "total_variation",
    "uld",
]
