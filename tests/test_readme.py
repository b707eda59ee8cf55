"""What README promises exists: commands, targets, parameters, files, headings, numbers and code."""

import ast
import importlib
import importlib.util
import re
import shlex
from dataclasses import fields
from itertools import pairwise
from urllib.parse import unquote

import pytest

from workbench.__main__ import command_names, command_parser, main
from workbench.files import PROJECT
from workbench.profiles import PROFILES
from workbench.runs.records import BEGIN, END, load_records, readme_table

README = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.M | re.S)
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
SHELL = [
    part.strip()
    for text in [*re.findall(r"`([^`\n]+)`", PROSE), *(code for kind, code in BLOCKS if kind == "console")]
    for line in text.splitlines()
    for part in line.split("#")[0].removeprefix("$ ").split("&&")
]
COMMANDS = [line for line in SHELL if line.startswith("python -m workbench ")]
MADE_LATER = {"docs/gallery.png", "workbench/experiments/my_paper.py"}  # by a browser; by the command that it shows


def words_of(command: str) -> list[str]:
    return shlex.split(command)[3:]


def test_readme_shows_commands():
    assert len(COMMANDS) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    name, *words = words_of(command)
    module = importlib.import_module(f"workbench.commands.{name}")
    assert (
        command_parser(name, module).parse_args(words) is not None
    )  # leaves by SystemExit where an option does not exist


def test_the_list_of_commands_is_whole():
    (listed,) = re.findall(r"`python -m workbench` \(([^)]*)\)", README)
    assert sorted(re.findall(r"`(\w+)`", listed)) == command_names()


def test_an_unknown_command_is_what_these_tests_would_notice(capsys):
    assert main(["rnu"]) == 2
    assert "Did you mean 'run'" in capsys.readouterr().err


def test_every_make_target_and_variable_exists():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    used = [line.split()[1:] for line in SHELL if line.startswith("make ")]
    assert used
    for target, *variables in used:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
        for name, _, value in (one.partition("=") for one in variables):
            assert re.search(rf"^{name} *\?=", makefile, flags=re.M), name
            assert name != "PROFILE" or value in PROFILES


def test_every_parameter_of_a_paper_is_a_field_of_its_config():
    loose = {name for line in SHELL if line.startswith("-p ") for name in re.findall(r"-p (\w+)=", line)}
    known = set()
    for command in COMMANDS:
        name, *words = words_of(command)
        asked = {word.partition("=")[0] for flag, word in pairwise(words) if flag == "-p"}
        if name not in ("run", "sweep") or not asked:
            continue
        module = f"workbench.experiments.{words[0]}"
        if importlib.util.find_spec(module) is None:
            continue  # a paper that is not there has no parameters; its notebook's link is checked below
        config = getattr(importlib.import_module(module), "Config", None)
        if config is not None:
            assert asked <= {field.name for field in fields(config)}, command
            known |= {field.name for field in fields(config)}
    assert not known or loose <= known


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)\s]+)\)", README))
def test_every_link_leads_somewhere(target):
    path, _, anchor = unquote(target).partition("#")
    if re.match(r"[a-z]+:", path):
        return
    assert path in MADE_LATER or (PROJECT / path).exists()
    if anchor:
        text = (PROJECT / path).read_text(encoding="utf-8") if path else README
        assert anchor in {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, flags=re.M)}


def slug(heading: str) -> str:
    """A heading's anchor as forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_every_path_in_a_command_or_in_prose_exists():
    paths = re.findall(r"(?:workbench|notebooks|tests|docs)/[\w./]+\w", README)
    missing = {path for path in paths if not (PROJECT / path).exists() and "my_paper" not in path}
    assert missing <= MADE_LATER


def test_the_table_of_papers_is_what_the_records_say():
    table = README[README.index(BEGIN) + len(BEGIN) : README.index(END)]
    assert table.strip() == readme_table(load_records())


@pytest.mark.parametrize("code", [code for kind, code in BLOCKS if kind == "python"])
def test_code_compiles_and_imports_what_exists(code):
    tree = ast.parse(code)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    names = {}
    exec(compile(ast.Module(imports, []), "README.md", "exec"), names)
    assert all(names[alias.asname or alias.name] is not None for node in imports for alias in node.names)


def test_what_is_said_to_be_a_widget_or_a_loader_exists():
    from workbench.models.pretrained import load_pretrained
    from workbench.widgets import experiment_form, loss_explorer, teacher_picker

    for module, name in (
        (loss_explorer, "LossExplorer"),
        (teacher_picker, "TeacherPicker"),
        (experiment_form, "ExperimentForm"),
    ):
        assert f"`{name}`" in README
        assert isinstance(getattr(module, name), type)
    assert f"`{load_pretrained.__name__}`" in README
