from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from ingestd.config import Settings
from ingestd.errors import Code, SystemFault
from ingestd.premis import DigestAlgorithm


def test_without_anything_the_defaults_are_in_force() -> None:
    assert Settings.load(environ={}).http_port == 9464


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "ingestd.toml"
    file.write_text('http_port = 1\nlog_level = "debug"\n[amqp]\nrequests = "r"\nevents = "e"\n')

    settings = Settings.load(
        environ={"INGESTD_CONFIG": str(file), "INGESTD_AMQP__EVENTS": "x", "INGESTD_HTTP_PORT": "2"}
    )

    assert (2, "debug", "r", "x") == (
        settings.http_port,
        settings.log_level,
        settings.amqp.requests,
        settings.amqp.events,
    )


def test_lists_and_tables_are_json_and_nested_settings_have_two_underscores() -> None:
    settings = Settings.load(
        environ={
            "INGESTD_LOCATIONS": '{"a": "file:///a"}',
            "INGESTD_DEFAULT_LOCATION": "a",
            "INGESTD_SOURCES__ROOTS": '["/one", "/two"]',
            "INGESTD_DIGEST_ALGORITHM": "sha512",
            "INGESTD_PROCESSING__NORMALIZE": "false",
            "INGESTD_KEEP_WORK": "",
            "OTHER": "x",
        }
    )

    assert settings.all_locations == {"a": "file:///a"}
    assert settings.sources.roots == (Path("/one"), Path("/two"))
    assert settings.digest_algorithm is DigestAlgorithm.SHA512
    assert settings.processing == {"normalize": "false"}
    assert settings.keep_work is False


def test_programs_are_looked_for_in_path_unless_a_setting_says_where() -> None:
    environ = {"PATH": "/usr/bin:/opt/fits"}

    assert Settings.load(environ=environ).tools.path == "/usr/bin:/opt/fits"
    assert Settings.load(environ={**environ, "INGESTD_TOOLS__PATH": "/srv/tools"}).tools.path == "/srv/tools"


def test_an_empty_list_of_locations_has_one_in_the_data_folder(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "d")

    assert settings.all_locations == {"primary": (tmp_path / "d/aips").as_uri()}
    assert settings.work_dir == tmp_path / "d/work"
    assert settings.journal_path == tmp_path / "d/service.db"


def test_relative_paths_are_taken_from_where_the_service_starts() -> None:
    environ = {"INGESTD_DATA_DIR": "here", "INGESTD_SOURCES__ROOTS": '["in"]', "INGESTD_POLICIES": "p"}
    settings = Settings.load(environ=environ)

    assert (Path.cwd() / "here", (Path.cwd() / "in",), Path.cwd() / "p") == (
        settings.data_dir,
        settings.sources.roots,
        settings.policies,
    )


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SystemFault) as caught:
        Settings.load(environ={"INGESTD_HTTP_PORT": "high", "INGESTD_AMQP__NOPE": "1", "INGESTD_LOG_LEVEL": "loud"})

    assert caught.value.code is Code.SYSTEM_CONFIGURATION
    assert {v.path for v in caught.value.violations} == {"http_port", "amqp.nope", "log_level"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_bytes(b"a = \xff")

    for name in ("missing.toml", "broken.toml"):
        with pytest.raises(SystemFault, match=name) as caught:
            Settings.load(tmp_path / name, environ={})
        assert caught.value.code is Code.SYSTEM_CONFIGURATION


def test_a_password_is_not_shown_nor_dumped() -> None:
    settings = Settings.load(environ={"INGESTD_AMQP__URL": "amqp://me:s3cret@host/"})

    assert "s3cret" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.amqp.url.get_secret_value() == "amqp://me:s3cret@host/"


def test_a_password_in_the_wrong_place_is_not_in_the_error_nor_in_what_caused_it() -> None:
    secret = "s3" + "cret"  # put together here: a traceback shows the lines of this test
    environ = {"INGESTD_AMQP": f"amqp://me:{secret}@host/", "INGESTD_HTTP_PORT": secret}

    with pytest.raises(SystemFault) as caught:
        Settings.load(environ=environ)

    assert secret not in "".join(traceback.format_exception(caught.value))
    assert secret not in repr(caught.value.violations)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ('data_dirr = "/x"', "data_dirr", "did you mean data_dir?"),
        ('[sources]\nroot = ["/x"]', "sources.root", "did you mean roots?"),
        ('[credentials.a]\nregoin = "x"', "credentials.a.regoin", "did you mean region?"),
        ('[locations.a]\nurl = "file:///x"\nlayuot = "ocfl"', "locations.a.layuot", "did you mean layout?"),
        ("[amqp]\nqqq = 1", "amqp.qqq", "one of url, "),
    ],
)
def test_of_an_unknown_setting_its_name_and_the_nearest_are_told(
    tmp_path: Path, text: str, path: str, expected: str
) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(SystemFault) as caught:
        Settings.load(tmp_path / "c.toml", {})
    said = {one.path: one.expected for one in caught.value.violations if one.rule == "unknown_setting"}

    assert f"there is no setting {path}" in caught.value.detail
    assert said[path].startswith(expected)
