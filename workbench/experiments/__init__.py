"""A paper's protocol as a few named steps. There is no registry: the files of this folder are the list.

Each module has a frozen ``Config`` with profiles, two to six steps, ``conclude(config, *results)`` and
``run(config)``, which calls the same steps in the same order.
"""
