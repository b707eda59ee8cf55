"""A mixed recipe as code that can be pasted into a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

LONGEST = 100  # characters of a line


def recipe_code(choice: Mapping[str, int], bits: Collection[int]) -> str:
    """Python that makes the recipe of ``choice`` (bits by layer); bits that are not among ``bits`` stay float."""
    known = {layer: width if width in bits else None for layer, width in choice.items()}
    usual = Counter(known.values()).most_common(1)[0][0]
    groups: dict[int | None, list[str]] = {}
    for layer, width in known.items():
        if width != usual:
            groups.setdefault(width, []).append(layer)
    lines = [
        "from workbench.quantizers.model import quantize_model",
        "from workbench.quantizers.recipes import Recipe",
        "",
    ]
    overrides = ""
    if groups:
        lines.append("layers = {  # bits: names; None leaves them in float")
        for width in sorted(groups, key=lambda one: (one is None, one)):
            lines += [f"    {width}: [", *_wrapped(groups[width]), "    ],"]
        lines += ["}", "rules = {", "    name: Recipe.of('rtn', bits).default if bits else None"]
        lines += ["    for bits, names in layers.items()", "    for name in names", "}"]
        overrides = ", overrides=rules"
    if usual is None:
        lines.append(f"recipe = Recipe(None{overrides})")
    else:
        lines.append(f"recipe = Recipe.of('rtn', {usual}{overrides})")
    lines.append("quantised = quantize_model(model, recipe, in_place=False)")
    return "\n".join(lines)


def _wrapped(names: list[str]) -> list[str]:
    """Names in quotes, as many in a line as it holds."""
    lines, line = [], ""
    for name in names:
        item = f"{name!r}, "
        if line and len(line) + len(item) > LONGEST - 8:
            lines.append(line)
            line = ""
        line += item
    return [f"        {line.rstrip()}" for line in [*lines, line]]
