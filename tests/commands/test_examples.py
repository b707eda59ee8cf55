"""What a command's help shows can be typed."""

import importlib
import itertools
import re
import shlex

import pytest

from workbench.__main__ import command_names, command_parser
from workbench.runs.notebooks import find_notebook
from workbench.runs.parameters import parameters


def module_of(command):
    return importlib.import_module(f"workbench.commands.{command}")


def examples(command):
    lines = module_of(command).EXAMPLES
    return [shlex.split(re.split(r"\s{2,}#| # ", line)[0].partition(" | ")[0]) for line in lines]


@pytest.mark.parametrize("command", command_names())
def test_each_help_shows_two_examples_that_its_own_parser_takes(command):
    shown = examples(command)
    assert len(shown) >= 2
    for words in shown:
        assert words[:4] == ["python", "-m", "workbench", command]
        command_parser(command, module_of(command)).parse_args(words[4:])


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_the_parameters_of_an_example_are_the_papers_own(command):
    for words in examples(command):
        if words[4] != "all":
            known = {parameter.name for parameter in parameters(find_notebook(words[4]))}
            asked = {word.partition("=")[0] for flag, word in itertools.pairwise(words) if flag == "-p"}
            assert asked <= known
