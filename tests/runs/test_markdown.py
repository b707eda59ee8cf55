"""Markdown of a notebook as HTML that needs no network."""

import pytest

from workbench.runs.gallery.markdown import Renderer, mathml, render


def html_of(source: str, **pages: str) -> str:
    return render(source, Renderer(pages))


def test_formulas_become_mathml_in_the_line_and_on_their_own():
    html = html_of("For $a_i > 0$:\n\n$$\\sum_i a_i$$\n")
    assert html.count("<math") == 2
    assert 'display="block"' in html
    assert "$" not in html


@pytest.mark.parametrize(
    "formula",
    [
        r"\mathrm{KL}(p\,\|\,q) = \sum_v p_v \log\frac{p_v}{q_v}",
        r"\operatorname{softmax}\left((1-t)\,\text{sg}(\ell_s) + t\,\ell_T\right)",
        r"\begin{cases} a & x > 0 \\ b & x \le 0 \end{cases}",
        r"\hat{y} \in \mathbb{R}^{n \times d}, \quad \lVert w \rVert_2 \lesssim \mathcal{O}(\sqrt{n})",
        r"\begin{aligned} a &= b \\ c &= d \end{aligned}",
        r"L(N) = \left(\frac{N_c}{N}\right)^{\alpha_N}",
    ],
)
def test_the_formulas_of_this_field_are_understood(formula):
    html = mathml(formula, display="block")
    assert html.startswith("<math")
    assert "<mi>&</mi>" not in html
    assert "\\" not in html  # nothing was left as TeX


def test_a_formula_that_cannot_be_read_stays_readable_as_code():
    assert "<code>\\left( a</code>" in html_of("$\\left( a$")


def test_the_first_heading_is_the_pages_title_and_second_ones_its_contents():
    renderer = Renderer({})
    html = render("# The `title`\n\n## One\n\n## One\n\n# Late\n", renderer)
    assert renderer.title == "The title"
    assert [heading.anchor for heading in renderer.headings] == ["one", "one-2"]
    assert "<h1" not in html


def test_a_link_to_a_notebook_leads_to_its_page_and_to_none_is_text():
    html = html_of("[there](taid.ipynb) [not](nothing.ipynb) [out](https://example.org)", taid="taid-full.html")
    assert '<a href="taid-full.html">there</a>' in html
    assert "<span>not</span>" in html
    assert '<a href="https://example.org">out</a>' in html


def test_a_picture_from_elsewhere_becomes_a_link_since_pages_load_nothing():
    assert "<img" not in html_of("![a curve](https://example.org/curve.png)")
    assert '<img src="data:image/png;base64,AAAA"' in html_of("![a curve](data:image/png;base64,AAAA)")
