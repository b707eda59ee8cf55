from workbench.__main__ import main
from workbench.runs.store import RUNNING, Run, runs_folder, this_process


def fill(house):
    for name in ("assets", "cache", "runs"):
        (house / "data" / name).mkdir(parents=True)
        (house / "data" / name / "file").write_bytes(bytes(1024**2))


def test_sizes_are_shown(house, capsys):
    fill(house)
    assert main(["cache"]) == 0
    told = capsys.readouterr().out
    assert told.count("1.0 MiB") == 3
    assert "gallery  0.0 MiB" in told


def test_clearing_takes_only_what_was_named(house):
    fill(house)
    assert main(["cache", "--clear"]) == 0
    assert not (house / "data" / "cache").exists()
    assert (house / "data" / "runs" / "file").exists()
    assert main(["cache", "--clear", "all"]) == 0
    assert not any((house / "data" / name).exists() for name in ("assets", "runs"))


def test_runs_are_not_cleared_while_one_is_running(house, capsys):
    run = Run("toy", "a", runs_folder() / "toy" / "a", RUNNING, process=this_process())
    run.save()
    assert main(["cache", "--clear", "all"]) == 2
    assert run.folder.exists()
    assert "cannot be cleared" in capsys.readouterr().err
