import importlib

import pytest

from workbench.__main__ import build_parser, command_names, main


def test_every_command_has_help_with_two_worked_examples(capsys):
    for name in command_names():
        examples = importlib.import_module(f"workbench.commands.{name}").EXAMPLES
        shown = [line for line in examples if line.startswith(f"python -m workbench {name}")]
        assert len(shown) == 2
        assert main([name, "--help"]) == 0
        told = capsys.readouterr().out
        assert all(line.strip() in told for line in shown)


@pytest.mark.parametrize("name", command_names())
def test_the_examples_of_the_help_can_be_parsed(name):
    import shlex

    from workbench.__main__ import command_parser

    module = importlib.import_module(f"workbench.commands.{name}")
    for example in module.EXAMPLES:
        words = shlex.split(example.partition(" |")[0], comments=True)
        command_parser(name, module).parse_args(words[4:])


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
