"""An executed notebook's cells as HTML: text, folded code, tables, live figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

import nbformat
from nbconvert.filters import Highlight2HTML, strip_ansi

from workbench.runs.gallery import markdown
from workbench.runs.gallery.figures import MIME, figure_html

# Papermill's own additions: what they say stands on the page elsewhere.
SKIPPED_TAGS = {"injected-parameters", "papermill-error-cell-tag", "remove-cell"}
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_NOTE = '<p class="widget">An interactive widget stands here: open the notebook in JupyterLab to use it.</p>'
# What is left of a widget once its state has been dropped from the run's notebook: its repr.
WIDGET_TEXT = re.compile(r"\s*[A-Z]\w*\((?:(?:children|value|options|description|layout|figure)=.*)?\)\s*$", re.S)
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")
REMOTE = re.compile(r"<(script|iframe|link)\b[^>]*(?:src|href)\s*=\s*[\"']?(?:https?:)?//[^>]*>(\s*</\1>)?", re.I)
REMOTE_PICTURE = re.compile(r"<img\b[^>]*src\s*=\s*[\"']?(?:https?:)?//[^>]*>", re.I)
SCOPED_STYLE = re.compile(r"<style scoped>.*?</style>", re.S)


class Body(NamedTuple):
    """What a page shows of a notebook."""

    title: str
    html: str
    headings: list[markdown.Heading]
    figures: int


def notebook_body(notebook: Any, *, template: dict[str, Any], pages: Mapping[str, str]) -> Body:
    """All cells of a notebook node as HTML."""
    renderer = markdown.Renderer(pages)
    highlight = Highlight2HTML(pygments_lexer="ipython3")
    parts: list[str] = []
    for cell in notebook.cells:
        if SKIPPED_TAGS & set(cell.metadata.get("tags", [])):
            continue
        if cell.cell_type == "markdown":
            text = _with_attachments(cell)
            parts.append(f'<section class="text">{markdown.render(text, renderer)}</section>')
        elif cell.cell_type == "code" and cell.source.strip():
            parts.append(_code(cell, highlight))
            parts.append(_outputs(cell.outputs, template, renderer))
    html = "\n".join(part for part in parts if part)
    return Body(renderer.title, html, renderer.headings, html.count('<div class="drawing"'))


def _with_attachments(cell: Any) -> str:
    """Pictures that were dropped into a markdown cell, as data the page carries."""
    text = cell.source
    for name, kinds in cell.get("attachments", {}).items():
        kind, data = next(iter(kinds.items()))
        text = text.replace(f"attachment:{name}", f"data:{kind};base64,{data}")
    return text


def _code(cell: Any, highlight: Highlight2HTML) -> str:
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return (
        f'<details class="code"><summary><span class="word">Code</span> <code>{escape(first[:90])}</code></summary>'
        f"{highlight(cell.source)}</details>"
    )


def _outputs(outputs: list[Any], template: dict[str, Any], renderer: markdown.Renderer) -> str:
    shown: list[str] = []
    for output in _told_together(outputs):
        html = _output(output, template, renderer)
        if html and html not in shown[-1:]:  # three progress bars leave one note, not three
            shown.append(html)
    return "\n".join(shown)


def _told_together(outputs: list[Any]) -> list[Any]:
    """Neighbouring messages as one: a progress that is told line by line leaves one note, not twenty."""
    together: list[Any] = []
    for output in outputs:
        before = together[-1] if together else None
        if before is not None and output.output_type == before.output_type == "stream" and output.name == before.name:
            text = "\n".join(part.text.strip("\n") for part in (before, output))
            together[-1] = nbformat.from_dict({**before, "text": text})
        else:
            together.append(output)
    return together


def _output(output: Any, template: dict[str, Any], renderer: markdown.Renderer) -> str:
    if output.output_type == "stream":
        text = escape(strip_ansi(output.text).strip())
        if output.name == "stderr":
            return f'<details class="messages"><summary>Messages</summary><pre>{text}</pre></details>' if text else ""
        return f'<pre class="printed">{text}</pre>' if text else ""
    if output.output_type == "error":
        trace = escape(strip_ansi("\n".join(output.traceback)))
        told = escape(f"{output.ename}: {output.evalue}")
        return (
            f'<div class="error"><p>{told}</p><details><summary>Traceback</summary><pre>{trace}</pre></details></div>'
        )
    return _data(output.data, template, renderer)


def _data(data: Mapping[str, Any], template: dict[str, Any], renderer: markdown.Renderer) -> str:
    """The richest of a bundle's forms that a page without network can show."""
    if MIME in data:
        return figure_html(data[MIME], template=template)
    if WIDGET in data:
        return WIDGET_NOTE
    if "text/html" in data:
        return table_html("".join(data["text/html"]))
    for kind in PICTURES:
        if kind in data:
            return _picture(kind, "".join(data[kind]))
    if "text/markdown" in data:
        return markdown.render("".join(data["text/markdown"]), renderer)
    if "text/latex" in data:
        return markdown.mathml("".join(data["text/latex"]).strip("$"), display="block")
    text = "".join(data.get("text/plain", ""))
    if WIDGET_TEXT.match(text):
        return WIDGET_NOTE
    return f'<pre class="printed">{escape(text)}</pre>' if text else ""


def _picture(kind: str, data: str) -> str:
    if kind == "image/svg+xml":
        return f'<div class="picture" role="img" aria-label="Picture made by the cell above">{data}</div>'
    flat = data.replace("\n", "")
    return f'<img class="picture" src="data:{kind};base64,{flat}" alt="Picture made by the cell above">'


def table_html(html: str) -> str:
    """An HTML output without what it would load from elsewhere, scrolling by itself where it is wide."""
    clean = REMOTE_PICTURE.sub("", REMOTE.sub("", SCOPED_STYLE.sub("", html)))
    clean = clean.replace(' border="1"', "")
    return f'<div class="wide" role="region" aria-label="Table" tabindex="0">{clean}</div>'
