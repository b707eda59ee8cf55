import importlib
import itertools
import shlex

import pytest

from workbench.__main__ import build_parser, command_names, command_parser, main
from workbench.runs.notebooks import find_notebook
from workbench.runs.parameters import parameters


def test_every_command_has_help_with_two_worked_examples(capsys):
    for name in command_names():
        examples = importlib.import_module(f"workbench.commands.{name}").EXAMPLES
        shown = [line for line in examples if line.startswith(f"python -m workbench {name}")]
        assert len(shown) == 2
        assert main([name, "--help"]) == 0
        told = capsys.readouterr().out
        assert all(line.strip() in told for line in shown)


def examples(name):
    """The words of a command's worked examples, without comments and what they are piped into."""
    module = importlib.import_module(f"workbench.commands.{name}")
    return [shlex.split(example.partition(" |")[0], comments=True) for example in module.EXAMPLES]


@pytest.mark.parametrize("name", command_names())
def test_the_examples_of_the_help_can_be_parsed(name):
    parser = command_parser(name, importlib.import_module(f"workbench.commands.{name}"))
    for words in examples(name):
        assert parser.parse_args(words[4:]) is not None  # leaves by SystemExit where an option does not exist


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_the_parameters_of_an_example_are_the_papers_own(name):
    for words in examples(name):
        if words[4] != "all":
            known = {parameter.name for parameter in parameters(find_notebook(words[4]))}
            asked = {word.partition("=")[0] for flag, word in itertools.pairwise(words) if flag == "-p"}
            assert asked <= known


def test_the_overview_lists_every_command():
    told = build_parser().format_help()
    assert all(f"  {name} " in told for name in command_names())


def test_no_command_at_all_shows_the_overview(capsys):
    assert main([]) == 0
    assert "exit codes" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["runn", "all"], ["--nonsense"], ["list", "--nonsense"], ["run"]])
def test_wrong_use_is_2(wrong, capsys):
    assert main(wrong) == 2


def test_an_unknown_command_gets_a_suggestion(capsys):
    assert main(["runn"]) == 2
    assert "Did you mean 'run'" in capsys.readouterr().err
