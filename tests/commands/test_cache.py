import re

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
    assert told.count("1.0 MiB") == 4  # cache and its part
    assert re.search(r"gallery +0\.0 MiB", told)
    assert re.search(r"cache/file +1\.0 MiB", told)


def test_everything_that_the_data_folder_holds_is_listed(house, capsys):
    assert main(["cache"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[3:]]
    assert listed == ["archives", "assets", "cache", "gallery", "peers", "runs"]


def test_a_part_of_the_cache_is_cleared_alone(house, capsys):
    for part in ("models", "text"):
        (house / "data" / "cache" / part).mkdir(parents=True)
    assert main(["cache", "--clear", "cache/models"]) == 0
    assert not (house / "data" / "cache" / "models").exists()
    assert (house / "data" / "cache" / "text").exists()
    assert main(["cache", "--clear", "cache/modles"]) == 2


def test_what_the_user_put_there_is_cleared_by_its_name_only(house):
    archive = house / "data" / "archives" / "own.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"1")
    assert main(["cache", "--clear", "all"]) == 0
    assert archive.exists()
    assert main(["cache", "--clear", "archives"]) == 0
    assert not archive.exists()


def test_no_name_leads_out_of_the_data_folder(house):
    outside = house / "kept"
    outside.mkdir()
    for name in ("../kept", "cache/../../kept", str(outside), "."):
        assert main(["cache", "--clear", name]) == 2
    assert outside.exists()


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
