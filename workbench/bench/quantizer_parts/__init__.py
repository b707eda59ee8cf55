"""Parts of the bench of the quantizers, one per subject: each has ``measure(quick, threads)``."""
