"""One command a module: ``EXAMPLES``, ``add_arguments(parser)`` and ``run(arguments)``, the exit code."""
