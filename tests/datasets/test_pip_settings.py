"""The workbench looks where pip would look."""

from workbench.datasets.pip_settings import (
    DEFAULT_INDEX,
    PipSettings,
    parse_config_list,
    read_pip_settings,
    settings_from,
)


def test_without_any_configuration_the_public_index_is_asked():
    assert settings_from({}) == PipSettings() == PipSettings(indexes=(DEFAULT_INDEX,))


def test_the_main_index_comes_before_the_extra_ones():
    settings = settings_from({"index-url": "https://a/simple", "extra-index-url": "https://b/simple\nfile:///c"})
    assert settings.indexes == ("https://a/simple", "https://b/simple", "file:///c")


def test_no_index_leaves_only_the_links():
    settings = settings_from({"no-index": "1", "index-url": "https://a", "find-links": "/wheels https://c/list.html"})
    assert settings.indexes == ()
    assert settings.find_links == ("/wheels", "https://c/list.html")


def test_what_is_set_for_downloads_wins_over_what_is_set_for_everything():
    answer = "download.index-url='https://download'\nglobal.index-url='https://all'\ninstall.index-url='https://no'\n"
    assert parse_config_list(answer) == {"index-url": "https://download"}


def test_lines_that_are_not_settings_are_passed_over():
    assert parse_config_list("WARNING: something\nglobal.cert='/ca.pem'\nglobal.odd=[\n") == {"cert": "/ca.pem"}


def test_pips_own_file_is_read_and_the_environment_wins_over_it(tmp_path, no_pip_files, monkeypatch):
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://file/simple\ncert = /file.pem\ntimeout = 3\n"
        "trusted-host =\n    one.example\n    two.example:8080\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_CERT", "/environment.pem")
    settings = read_pip_settings()
    assert "https://file/simple" in settings.indexes
    assert settings.certificate == "/environment.pem"
    assert settings.timeout == 3
    assert settings.trusted_hosts == ("one.example", "two.example:8080")
