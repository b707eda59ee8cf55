"""The gallery of two real runs, one that finished and one that failed."""

import dataclasses
import json
import re

import nbformat
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.plots.test_theme import contrast
from workbench.files import folder_size
from workbench.runs.gallery.cells import notebook_body
from workbench.runs.gallery.choice import choose
from workbench.runs.gallery.figures import card_figure, describe, figure_html, figures_of, shared_template
from workbench.runs.gallery.interval import estimate_words, interval_svg
from workbench.runs.gallery.page import command
from workbench.runs.gallery.words import duration_words, number_words
from workbench.runs.gallery.write import STATIC, write_gallery
from workbench.runs.store import Run

LOADS = re.compile(r"<(?:script|img|link|iframe|source|video|audio|object|embed)\b[^>]*(?:src|href|data)=\"([^\"]*)\"")


@pytest.fixture(scope="module")
def gallery(sample, tmp_path_factory):
    return write_gallery(tmp_path_factory.mktemp("gallery"), of_runs=sample.runs, of_papers=sample.papers).parent


def page(gallery, name: str) -> str:
    return (gallery / name).read_text(encoding="utf-8")


def test_pages_load_nothing_but_what_lies_beside_them(gallery):
    for path in gallery.glob("*.html"):
        for address in LOADS.findall(path.read_text(encoding="utf-8")):
            assert address.startswith("data:") or (gallery / address).is_file(), f"{path.name} loads {address}"
    assert "@import" not in page(gallery, "shared/style.css")
    assert "url(" not in page(gallery, "shared/style.css")


def test_a_page_holds_every_figure_of_its_notebook_and_every_link_leads_somewhere(sample, gallery):
    notebook = nbformat.read(sample.run("few_digits").notebook, as_version=4)
    html = page(gallery, "few_digits-quick.html")
    stored = re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)
    assert len(stored) == len(list(figures_of(notebook))) == 3
    assert [json.loads(one)["data"][0]["type"] for one in stored] == ["scatter"] * 3
    for address in re.findall(r'<a [^>]*href="([^"#]+)"', html):
        assert (gallery / address).is_file()


def test_the_workbenchs_template_is_stored_once_and_not_in_every_figure(gallery):
    assert page(gallery, "few_digits-quick.html").count('"template":"shared"') == 3
    assert page(gallery, "shared/template.js").startswith("const sharedTemplate = {")


def test_a_page_shows_claims_formulas_tables_and_where_it_comes_from(gallery):
    html = page(gallery, "few_digits-quick.html")
    assert html.count('<svg class="strip') == 3
    assert html.count("<math") == 3
    assert "★ 0.02 †" in html
    assert "python -m workbench run few_digits --profile quick" in html
    assert "Neighbours need fewer digits than lines do." in html
    assert "An interactive widget stands here" in html
    assert html.count("<h1") == 1


def test_a_failed_run_is_shown_with_its_error_on_every_page(gallery):
    for name in ("index.html", "claims.html", "breaks_down-quick.html"):
        assert "Did you mean &#39;reverse_kl&#39;?" in page(gallery, name)
    assert "Traceback" in page(gallery, "breaks_down-quick.html")
    assert "never reached" not in re.sub(
        r"<details.*?</details>", "", page(gallery, "breaks_down-quick.html"), flags=re.S
    )


def test_the_card_shows_the_tagged_figure_and_the_verdicts(sample, gallery):
    html = page(gallery, "index.html")
    assert html.count('data-card="yes"') == 1
    assert "accuracy on 500 digits" in html
    verdicts = sample.run("few_digits").verdicts
    assert all(f"{count} {verdict}" in html for verdict, count in verdicts.items())


def test_eighteen_papers_fit_into_fifteen_megabytes(sample, tmp_path):
    run, paper = sample.run("few_digits"), sample.papers[0]
    many = [dataclasses.replace(run, stem=f"paper_{index}") for index in range(18)]
    papers = [dataclasses.replace(paper, stem=f"paper_{index}") for index in range(18)]
    write_gallery(tmp_path, of_runs=many, of_papers=papers)
    assert len(list(tmp_path.glob("paper_*.html"))) == 18
    assert folder_size(tmp_path) < 15e6 / 2  # the papers' own figures may be larger than these


def test_a_page_of_a_run_that_is_no_longer_shown_goes(sample, tmp_path):
    write_gallery(tmp_path, of_runs=sample.runs, of_papers=sample.papers)
    write_gallery(tmp_path, of_runs=[sample.run("few_digits")], of_papers=sample.papers)
    assert {path.name for path in tmp_path.glob("*.html")} == {"index.html", "claims.html", "few_digits-quick.html"}


def test_without_any_run_the_index_says_how_to_run_each_paper(sample, tmp_path):
    index = write_gallery(tmp_path, of_runs=[], of_papers=sample.papers)
    assert "python -m workbench run few_digits" in index.read_text(encoding="utf-8")


def made_up(profile: str, started: str, status: str = "finished", stem: str = "taid", **parameters) -> Run:
    given = {"profile": profile, **parameters}
    return Run(stem, started, None, status=status, profile=profile, parameters=given, started=started)


def shown(*runs: Run) -> list[tuple[str, str]]:
    return [(run.profile, run.started) for run in choose(runs, [])[0].runs]


def test_the_largest_finished_profile_stands_for_a_paper_and_of_each_profile_the_latest():
    runs = (made_up("quick", "3"), made_up("full", "1"), made_up("full", "2"), made_up("smoke", "4"))
    assert shown(*runs) == [("full", "2"), ("quick", "3")]


def test_a_failed_larger_run_is_linked_but_does_not_stand_for_the_paper():
    assert shown(made_up("full", "2", "failed"), made_up("quick", "1")) == [("quick", "1"), ("full", "2")]


def test_a_newer_failure_is_not_hidden_behind_an_older_success():
    assert shown(made_up("quick", "2", "failed"), made_up("quick", "1")) == [("quick", "2")]


def test_a_sweeps_runs_are_counted_not_taken_for_the_paper():
    one = choose([made_up("quick", "2", steps=10), made_up("quick", "1"), made_up("quick", "3", steps=20)], [])[0]
    assert (one.best.started, one.others) == ("1", 2)


def test_what_runs_at_this_moment_is_not_shown():
    assert choose([made_up("quick", "1", "running")], []) == []


def test_text_of_a_figure_cannot_end_its_script_element():
    html = figure_html(go.Figure(go.Scatter(y=[1], name="</script><b>")).to_plotly_json(), template={})
    assert html.count("</script>") == 1
    assert json.loads(re.search(r"json\">(.*?)</script>", html, re.S)[1])["data"][0]["name"] == "</script><b>"


def test_a_figure_is_described_by_its_titles_axes_and_groups():
    figure = go.Figure([go.Scatter(y=[1], name="student"), go.Scatter(y=[2], name="teacher")])
    figure.update_layout(title_text="Loss", xaxis_title_text="steps", yaxis_title_text="nats")
    assert describe(figure.to_plotly_json()) == "Loss: nats against steps: student, teacher"


def test_without_a_tagged_cell_the_first_figure_of_moderate_size_is_the_cards():
    large, small = (go.Figure(go.Scatter(y=list(range(count)))).to_plotly_json() for count in (30_000, 3))
    outputs = [new_output("display_data", {"application/vnd.plotly.v1+json": figure}) for figure in (large, small)]
    notebook = new_notebook(cells=[new_code_cell("x", outputs=outputs)])
    assert card_figure(notebook)["data"] == small["data"]


def test_a_progress_told_line_by_line_is_one_note_and_what_was_printed_between_stays_in_its_place():
    told = [("stderr", "after 1 s\n"), ("stderr", "after 2 s\n"), ("stdout", "a table\n"), ("stderr", "after 3 s\n")]
    outputs = [new_output("stream", name=name, text=text) for name, text in told]
    html = notebook_body(new_notebook(cells=[new_code_cell("x", outputs=outputs)]), template={}, pages={}).html
    assert html.count("<summary>Messages</summary>") == 2
    assert html.index("after 1 s") < html.index("after 2 s") < html.index("a table") < html.index("after 3 s")


def test_outputs_that_would_load_from_the_network_lose_that_part():
    html = '<script src="https://cdn.example/x.js"></script><img src="//cdn.example/x.png"><p>kept</p>'
    outputs = [new_output("display_data", {"text/html": html})]
    body = notebook_body(new_notebook(cells=[new_code_cell("x", outputs=outputs)]), template={}, pages={})
    assert "cdn.example" not in body.html
    assert "<p>kept</p>" in body.html


def test_a_notebook_without_heading_or_output_still_makes_a_page():
    body = notebook_body(new_notebook(cells=[new_markdown_cell("words"), new_code_cell("1")]), template={}, pages={})
    assert (body.title, body.figures, body.headings) == ("", 0, [])


def test_the_strip_of_a_claim_says_in_words_what_it_shows():
    claim = {"verdict": "supported", "estimate": 0.2, "low": 0.1, "high": 0.3, "above": 0.0, "threshold": "> 0"}
    assert 'aria-label="estimate 0.2 [0.1, 0.3]; holds if &gt; 0"' in interval_svg(claim)
    assert 'class="interval"' not in interval_svg({**claim, "low": float("nan"), "high": float("nan")})
    assert interval_svg({**claim, "estimate": float("nan")}) == ""


def test_times_and_numbers_are_said_as_one_says_them():
    assert [duration_words(seconds) for seconds in (0.2, 48.4, 200, 3900, None)] == [
        "under 1 s", "48 s", "3 min 20 s", "1 h 05 min", "unknown time",
    ]  # fmt: skip
    assert [number_words(value) for value in (0.05833, 12345.6, -0.5)] == ["0.0583", "12,346", "−0.5"]


def test_the_command_of_a_run_can_be_typed_as_it_stands():
    run = made_up("full", "1", seeds=[0, 1], corpus="my texts", rate=None)
    assert command(run) == "python -m workbench run taid --profile full -p seeds='[0,1]' -p corpus='my texts'"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_colour_can_be_read_on_its_background(scheme):
    blocks = re.findall(r":root \{(.*?)\}", (STATIC / "style.css").read_text(encoding="utf-8"), re.S)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[["light", "dark"].index(scheme)]))
    for name in ("ink", "soft", "link", "good", "bad"):
        assert contrast(colours[name], colours["paper"]) >= 4.5  # WCAG 2.2, level AA
    for name in ("ink", "comment", "word", "text", "number"):
        assert contrast(colours[name], colours["code"]) >= 4.5


def test_the_shared_template_is_plain_json():
    assert json.loads(json.dumps(shared_template())) == shared_template()


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)])
def test_in_a_browser_without_network_every_figure_is_drawn_in_the_pages_colours(chromium, gallery, scheme, width):
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
    tab = context.new_page()
    complaints = []
    tab.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    for name, figures in (("few_digits-quick.html", 3), ("index.html", 1), ("claims.html", 0)):
        tab.goto((gallery / name).as_uri())
        for place in range(figures):
            tab.locator(".drawing").nth(place).scroll_into_view_if_needed()
        tab.wait_for_function(
            "count => [...document.querySelectorAll('.drawing[data-drawn]')]"
            ".filter(one => one.querySelector('.cartesianlayer .trace path')).length === count",
            arg=figures,
        )
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
        if figures == 3:
            ink = tab.evaluate("getComputedStyle(document.querySelector('.xtitle')).fill")
            assert ink == {"light": "rgb(90, 96, 104)", "dark": "rgb(163, 168, 176)"}[scheme]
    assert complaints == []
    context.close()


@pytest.mark.browser
def test_in_a_browser_all_code_opens_with_one_button_and_figures_wait_until_they_are_near(chromium, gallery):
    tab = chromium.new_page(viewport={"width": 800, "height": 300})
    tab.goto((gallery / "few_digits-quick.html").as_uri())
    tab.wait_for_function("typeof Plotly === 'object'")
    assert tab.locator(".drawing[data-drawn]").count() < 3
    tab.get_by_role("button", name="Show all code").click()
    assert tab.locator("details.code:not([open])").count() == 0


@pytest.mark.browser
def test_in_a_browser_figures_follow_when_the_page_turns_dark(chromium, gallery):
    tab = chromium.new_page(color_scheme="light")
    tab.goto((gallery / "few_digits-quick.html").as_uri())
    tab.locator(".drawing").first.scroll_into_view_if_needed()
    ink = "() => getComputedStyle(document.querySelector('.xtitle')).fill"
    tab.wait_for_function(f"document.querySelector('.xtitle') && ({ink})() === 'rgb(90, 96, 104)'")
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function(f"({ink})() === 'rgb(163, 168, 176)'")
    tab.close()


def test_an_open_interval_says_so_and_a_missing_one_is_left_out():
    claim = {"estimate": 12.0, "low": 7.0, "high": float("inf"), "verdict": "contradicted"}
    assert estimate_words(claim) == "12 [7, ∞)"
    assert estimate_words({**claim, "high": None}) == "12 [7, ∞)"
    assert estimate_words({**claim, "low": float("nan"), "high": float("nan")}) == "12"
    assert 'class="interval"' in interval_svg(claim)
