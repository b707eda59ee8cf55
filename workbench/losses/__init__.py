r"""What pulls a student towards a teacher: losses on logits ``[..., vocab]``, in nats per token.

All share one signature, ``loss(student_logits, teacher_logits, mask=None, *, <own options>, temperature=1.0,
scale_by_t2=True, reduction="token_mean", num_items=None)``; p is the teacher's distribution, q the student's.

=================  ==========================================  ============================  =========================
name               per token                                   paper                         when to use it
=================  ==========================================  ============================  =========================
forward_kl         KL(p || q)                                  Hinton et al. 2015            the default: covers all
                                                                                             the teacher finds likely
reverse_kl         KL(q || p)                                  Gu et al. 2024 (MiniLLM)      student too small to
                                                                                             cover all: keeps to modes
jeffreys           KL(p || q) + KL(q || p)                     Jeffreys 1946                 both errors matter alike
symmetric_kl       (1 - w) KL(p || q) + w KL(q || p)           Ko et al. 2024 (baseline)     to weigh the two errors
generalized_jsd    b KL(p || m) + (1 - b) KL(q || m),          Agarwal et al. 2024 (GKD)     on-policy text, outliers:
                   m = b p + (1 - b) q                                                       bounded, never infinite
skew_kl            KL(p || a p + (1 - a) q), or reverse        Ko et al. 2024 (DistiLLM)     a KL with bounded
                   KL(q || a q + (1 - a) p)                                                  gradients, a near 0.1
total_variation    0.5 sum \|p - q\|                             Wen et al. 2023 (f-distill)   to report; its gradient
                                                                                             dies without overlap
taid               KL(softmax((1-t) z_q + t z_p) || q)         Shing et al. 2025 (TAID)      teacher much larger than
                                                                                             the student
=================  ==========================================  ============================  =========================

``TAIDSchedule`` moves taid's ``t``; ``TAIDLoss`` is both together. ``loss_by_name`` takes any by name.
"""

from workbench.losses.divergence import forward_kl, jeffreys, reverse_kl, symmetric_kl, total_variation
from workbench.losses.mixture import generalized_jsd, skew_kl
from workbench.losses.names import LOSSES, loss_by_name, loss_options
from workbench.losses.reduction import REDUCTIONS, reduce_tokens
from workbench.losses.taid import TAIDLoss, taid, taid_target
from workbench.losses.taid_schedule import TAIDSchedule

__all__ = [
    "LOSSES",
    "REDUCTIONS",
    "TAIDLoss",
    "TAIDSchedule",
    "forward_kl",
    "generalized_jsd",
    "jeffreys",
    "loss_by_name",
    "loss_options",
    "reduce_tokens",
    "reverse_kl",
    "skew_kl",
    "symmetric_kl",
    "taid",
    "taid_target",
    "total_variation",
]
