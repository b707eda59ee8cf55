from workbench.__main__ import main
from workbench.commands import doctor


def test_it_looks_at_everything_and_finds_what_runs_need(house, capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for what in ("python", "threads", "bfloat16", "disk", "shakespeare", "ipykernel", "chromium", "apt-get"):
        assert what in told


def test_a_package_that_is_missing_is_told_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr(doctor, "required_packages", lambda: {"a-package-nobody-has"})
    monkeypatch.setattr(doctor, "pinned_versions", lambda: {"a-package-nobody-has": "1.2"})
    findings = list(doctor.look_at_versions())
    assert (
        doctor.MISSING,
        "a-package-nobody-has",
        "not installed: pip install 'a-package-nobody-has==1.2'",
    ) in findings


def test_another_version_than_the_tested_one_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "pinned_versions", lambda: {"numpy": "1.0"})
    assert any(what == "numpy" and "tested with 1.0" in found for _, what, found in doctor.look_at_versions())
