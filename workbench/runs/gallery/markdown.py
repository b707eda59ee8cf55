"""A notebook's markdown as HTML that needs no network: formulas as MathML, links between notebooks as pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import NamedTuple
from urllib.parse import urlsplit

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


class Heading(NamedTuple):
    """A second-level heading and where a link reaches it."""

    text: str
    anchor: str


class Renderer(IPythonRenderer):
    """Markdown to HTML; ``headings`` fills up as cells are rendered.

    Args:
        pages: stem -> file name of the page that shows it, for links to other notebooks.
    """

    def __init__(self, pages: Mapping[str, str]):
        super().__init__(escape=False, exclude_anchor_links=True)
        self.pages = pages
        self.headings: list[Heading] = []
        self.title = ""
        self._anchors: dict[str, int] = {}

    def heading(self, text: str, level: int, **attributes: object) -> str:
        """A heading with an anchor of its own; the first top-level one becomes the page's title."""
        plain = plain_text(text)
        if level == 1 and not self.title:
            self.title = plain
            return ""
        anchor = self._anchor(plain)
        if level == 2:
            self.headings.append(Heading(plain, anchor))
        level = max(level, 2)  # the page has one h1 already
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link; one to a notebook leads to its page, or is text where there is none."""
        if urlsplit(url).scheme or url.startswith("#"):
            return super().link(text, url, title)
        name = re.sub(r"[#?].*", "", url).rsplit("/", 1)[-1]
        page = self.pages.get(name.removesuffix(".ipynb")) if name.endswith(".ipynb") else None
        return super().link(text, page, title) if page else f"<span>{text}</span>"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """A picture that the notebook carries itself; any other is a link, since pages load nothing."""
        if url.startswith("data:"):
            return super().image(text, url, title)
        return super().link(text or "picture", url, title) if urlsplit(url).scheme else f"<span>{text}</span>"

    def block_math(self, body: str) -> str:
        """A formula on a line of its own."""
        return mathml(body, display="block")

    def inline_math(self, body: str) -> str:
        """A formula in running text."""
        return mathml(body, display="inline")

    def latex_environment(self, name: str, body: str) -> str:
        r"""``\begin{name} ... \end{name}`` outside of dollars."""
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block")

    def _anchor(self, text: str) -> str:
        anchor = re.sub(r"\W+", "-", text.lower()).strip("-") or "section"
        count = self._anchors[anchor] = self._anchors.get(anchor, 0) + 1
        return anchor if count == 1 else f"{anchor}-{count}"


def render(source: str, renderer: Renderer) -> str:
    """Markdown ``source`` as HTML."""
    return MarkdownWithMath(renderer=renderer).render(source)


def mathml(formula: str, *, display: str) -> str:
    """TeX as MathML, which browsers draw themselves; TeX that is not understood stays readable as code."""
    # The library knows align, not aligned, and would show its column marks.
    known = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{align}", formula.strip())
    try:
        return convert(known, display=display)
    except Exception:  # whatever its parser trips over: a formula must not cost the page
        tag = "div" if display == "block" else "span"
        return f'<{tag} class="tex"><code>{escape(formula.strip())}</code></{tag}>'


def plain_text(html: str) -> str:
    """The words of an HTML fragment."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html)).strip()
