import json

import pytest

from workbench.commands.new import check_stem, create_paper


@pytest.fixture(scope="module")
def in_new(checkout, within):
    """Run Python in a checkout with one new paper; its exit code and what it printed."""
    create_paper("lottery_ticket", "The lottery ticket", checkout)

    def finish(*words):
        process = within(*words)
        told, errors = process.communicate()
        return process.returncode, told + errors

    return finish


@pytest.mark.notebooks
def test_a_new_paper_runs_at_smoke(in_new):
    code, told = in_new("-m", "workbench", "run", "lottery_ticket", "--profile", "smoke")
    assert code == 0, told
    assert "not judged" in told
    assert "The lottery ticket" in in_new("-m", "workbench", "list")[1]


@pytest.mark.notebooks
def test_its_run_shows_the_claims_and_stays_small_despite_the_form(checkout, in_new):
    code, told = in_new("-m", "workbench", "run", "lottery_ticket", "--profile", "smoke")
    assert code == 0, told
    (notebook,) = (checkout / "data" / "runs" / "lottery_ticket").glob("*/run.ipynb")
    *_, claims, _, form = json.loads(notebook.read_text())["cells"]
    assert "".join(claims["source"]) == "tables.claims(result.check())"
    assert "More labelled images give higher accuracy" in json.dumps(claims["outputs"])
    assert "A form with 3 parameters" in json.dumps(form["outputs"])
    assert notebook.stat().st_size < 100_000


def test_a_new_paper_passes_its_test(in_new):
    code, told = in_new("-m", "pytest", "-p", "no:cacheprovider", "tests/experiments/test_lottery_ticket.py")
    assert code == 0, told


def test_a_new_paper_is_formatted_as_the_house_is(in_new):
    files = ["workbench/experiments/lottery_ticket.py", "tests/experiments/test_lottery_ticket.py"]
    for check in (["check"], ["format", "--check"]):
        code, told = in_new("-m", "ruff", *check, *files)
        assert code == 0, told


def test_nothing_is_overwritten(checkout, in_new):
    before = (checkout / "notebooks" / "lottery_ticket.ipynb").read_text()
    with pytest.raises(ValueError, match="exists already and is not overwritten"):
        create_paper("lottery_ticket", "Another", checkout)
    assert (checkout / "notebooks" / "lottery_ticket.ipynb").read_text() == before


@pytest.mark.parametrize("stem", ["Foo", "1st", "a-b", "a__b", "", "class", "all", "con", "x" * 41, "../up"])
def test_a_stem_that_cannot_be_a_name_everywhere_is_refused(stem):
    with pytest.raises(ValueError, match="stem="):
        check_stem(stem)


def test_a_near_stem_is_suggested():
    with pytest.raises(ValueError, match="Did you mean 'foo_bar'"):
        check_stem("Foo-Bar")


def test_an_installed_package_is_no_place_for_a_paper(tmp_path):
    with pytest.raises(ValueError, match="not a checkout"):
        create_paper("lottery_ticket", "T", tmp_path)
