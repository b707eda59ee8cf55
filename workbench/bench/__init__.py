"""What claims to be fast, measured beside what one would use without it: each module has ``run(quick)``."""
