"""The command line: ``python -m workbench COMMAND``; each module of ``workbench.commands`` is one command."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from workbench import __version__
from workbench.errors import AssetError, check_choice

COMMANDS = Path(__file__).parent / "commands"
WELL, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = "exit codes: 0 well, 1 a run or gating claim failed, 2 wrong use (nothing was started), 130 interrupted"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 2 means wrong use, and then nothing was started."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if not argv or argv[0].startswith("-"):
            build_parser().parse_args(argv or ["--help"])
        name = check_choice("command", argv[0], command_names())
        module = importlib.import_module(f"workbench.commands.{name}")
        arguments = command_parser(name, module).parse_args(argv[1:])
        return module.run(arguments)
    except SystemExit as ended:  # argparse prints the usage itself
        return ended.code if isinstance(ended.code, int) else WRONG_USE
    except KeyboardInterrupt:
        print("Interrupted; the same command takes it up again.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, such as head, had enough
        return WELL
    except ValueError as error:
        if os.environ.get("WORKBENCH_DEBUG"):
            raise
        print(f"workbench: {error}", file=sys.stderr)
        return WRONG_USE
    except AssetError as error:
        print(f"workbench: {error}", file=sys.stderr)
        return FAILED


def command_names() -> list[str]:
    """The modules of ``workbench/commands``, in alphabetical order."""
    return sorted(path.stem for path in COMMANDS.glob("[!_]*.py"))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the front door: its help lists the commands, read without importing them."""
    names = command_names()
    width = max(map(len, names), default=0)
    lines = [f"  {name:<{width}}  {_first_line(COMMANDS / f'{name}.py')}" for name in names]
    told = "python -m workbench COMMAND --help tells more and shows two examples."
    parser = argparse.ArgumentParser(
        prog="python -m workbench",
        description="Papers on smaller, cheaper, better understood models, re-run with error bars.",
        epilog="\n".join(["commands:", *lines, "", told, EXIT_CODES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", metavar="COMMAND", help="one of those below, with its own options")
    return parser


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def command_parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of one command, its two worked examples below the options."""
    parser = argparse.ArgumentParser(
        prog=f"python -m workbench {name}",
        description=module.__doc__,
        epilog=f"examples:\n{_examples(module.EXAMPLES)}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def _examples(examples: str | Sequence[str]) -> str:
    lines = examples.strip().splitlines() if isinstance(examples, str) else examples
    return "\n".join(f"  {line.strip()}" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
