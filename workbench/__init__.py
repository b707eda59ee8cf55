"""A Jupyter-native research workbench for models that are smaller, cheaper and better understood.

Nothing heavy is imported here: ``import workbench`` takes milliseconds, and torch comes in only
with the subpackage that needs it.
"""

__version__ = "0.1.0"
