"""Settings: where they come from, what is refused, and that no secret gets out of them."""

import os
from pathlib import Path

import pytest

from watcher.errors import Misconfigured
from watcher.settings import settings

SECRETS = {"SUPABASE_SECRET_KEY": "sb_secret_very", "HF_TOKEN": "hf_very"}
ALL = {"SUPABASE_URL": "https://abc.supabase.co", **SECRETS}


@pytest.fixture(autouse=True)
def given(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing but what is needed is set."""
    for name in settings.environment():
        if name.startswith(("SUPABASE_", "HF_", "HUGGINGFACE_", "WATCHER_", "SSL_CERT_")) or name in {
            "CREDENTIALS_DIRECTORY",
            "CACHE_DIRECTORY",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
        }:
            monkeypatch.delenv(name)
    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_three_settings_are_enough() -> None:
    loaded = settings.load()
    assert loaded.supabase_url == "https://abc.supabase.co"
    assert loaded.hf_endpoint == "https://huggingface.co"
    assert loaded.hf_namespace is None
    assert (loaded.lease, loaded.renewal, loaded.grace) == (20, 5, 90)
    assert loaded.spool.name == loaded.instance


def test_all_problems_are_named_at_once_with_what_they_are(given: pytest.MonkeyPatch) -> None:
    given.delenv("HF_TOKEN")
    given.setenv("SUPABASE_URL", "abc.supabase.co")
    given.setenv("WATCHER_SLOTS", "none")
    given.setenv("WATCHER_INSTANCE", "a b")
    with pytest.raises(Misconfigured) as caught:
        settings.load()
    sentence = str(caught.value)
    assert "HF_TOKEN is not set (A Hugging Face token" in sentence
    assert "SUPABASE_URL is invalid: must begin with https://" in sentence
    assert "WATCHER_SLOTS is invalid" in sentence
    assert "WATCHER_INSTANCE is invalid" in sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SUPABASE_URL", "localhost:54321"),
        ("SUPABASE_URL", "http://"),
        ("SUPABASE_URL", "http://[::1"),
        ("SUPABASE_URL", "http://127.0.0.1:port"),
        ("HF_ENDPOINT", "huggingface.co"),
        ("HF_ENDPOINT", "http://"),
        ("WATCHER_INSTANCE", "../elsewhere"),
        ("WATCHER_INSTANCE", ".."),
        ("WATCHER_LEASE", "soon"),
        ("WATCHER_LEASE", "nan"),
        ("WATCHER_RENEWAL", "19"),
        ("WATCHER_LOG_FORMAT", "xml"),
    ],
)
def test_a_setting_that_cannot_be_is_named(given: pytest.MonkeyPatch, name: str, value: str) -> None:
    given.setenv(name, value)
    with pytest.raises(Misconfigured, match=name):
        settings.load()


@pytest.mark.parametrize(
    ("usual", "other"),
    [("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY"), ("HF_TOKEN", "HUGGINGFACE_TOKEN")],
)
def test_both_names_of_a_key_are_known(given: pytest.MonkeyPatch, usual: str, other: str) -> None:
    given.delenv(usual)
    given.setenv(other, "by_the_other_name")
    assert "by_the_other_name" in settings.load().secrets


def test_secrets_may_be_files_in_the_folder_that_systemd_names(
    given: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in SECRETS.items():
        given.delenv(name)
        (tmp_path / name).write_text(f"{value}_filed\n")
    given.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert settings.load().secrets == ["sb_secret_very_filed", "hf_very_filed"]


@pytest.mark.parametrize("name", ["SUPABASE_SERVICE_ROLE_KEY", "HUGGINGFACE_TOKEN"])
def test_the_other_name_will_do_for_a_file_as_well(
    given: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    given.delenv("SUPABASE_SECRET_KEY" if name.startswith("SUPABASE") else "HF_TOKEN")
    (tmp_path / name).write_text("filed")
    given.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert "filed" in settings.load().secrets


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_secret_is_not_set(given: pytest.MonkeyPatch, tmp_path: Path, empty: str) -> None:
    given.delenv("HF_TOKEN")
    (tmp_path / "HF_TOKEN").write_text(empty)
    given.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(Misconfigured, match="HF_TOKEN"):
        settings.load()


@pytest.mark.parametrize("written", [b"hf_filed", b"hf_filed\n", b"hf_filed\r\n", b"\n hf_filed\t\r\n\n"])
def test_a_secrets_file_may_end_as_editors_end_files(
    given: pytest.MonkeyPatch, tmp_path: Path, written: bytes
) -> None:
    given.delenv("HF_TOKEN")
    (tmp_path / "HF_TOKEN").write_bytes(written)
    given.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert settings.load().hf_token.get_secret_value() == "hf_filed"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (
            "\ufeffhf_filed".encode(),
            "HF_TOKEN is invalid: contains a space, a line break or another character",
        ),
        (
            "hf_filed\n".encode("utf-16"),
            "HF_TOKEN is not UTF-8 text: write the value of HF_TOKEN to it again",
        ),
        (b"hf_\xff\xfefiled", "HF_TOKEN is not UTF-8 text"),
        (b"hf_filed\0", "HF_TOKEN is invalid"),
        (b"hf_filed\nhf_other", "HF_TOKEN is invalid"),
    ],
)
def test_a_secrets_file_that_holds_no_secret_is_named_and_not_repeated(
    given: pytest.MonkeyPatch, tmp_path: Path, written: bytes, words: str
) -> None:
    given.delenv("HF_TOKEN")
    (tmp_path / "HF_TOKEN").write_bytes(written)
    given.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(Misconfigured) as caught:
        settings.load()
    assert words in str(caught.value)
    assert "filed" not in str(caught.value)


def test_a_pipe_in_place_of_a_secrets_file_is_named_and_not_waited_for(
    given: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    os.mkfifo(tmp_path / "HF_TOKEN")
    with pytest.raises(Misconfigured, match=r"HF_TOKEN cannot be read \(it is not a file\)"):
        settings.load()


@pytest.mark.parametrize("path", ["", "/", "/rest/v1", "/rest/v1/", "/auth/v1", "/storage/v1"])
def test_the_url_of_a_service_of_the_project_is_understood(given: pytest.MonkeyPatch, path: str) -> None:
    given.setenv("SUPABASE_URL", f"https://abc.supabase.co{path}")
    assert settings.load().supabase_url == "https://abc.supabase.co"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WATCHER_SLOTS", "8  # eight"),
        ("WATCHER_SPOOL", "/srv/spool # the big disk"),
        ("SUPABASE_URL", "https://abc.supabase.co # ours"),
        ("HUGGINGFACE_TOKEN", "hf_very # mine"),
    ],
)
def test_a_comment_behind_a_value_is_told(given: pytest.MonkeyPatch, name: str, value: str) -> None:
    given.delenv("HF_TOKEN")
    given.setenv("HUGGINGFACE_TOKEN", "hf_very")
    given.setenv(name, value)
    with pytest.raises(Misconfigured) as caught:
        settings.load()
    assert f"{name} has a comment behind its value" in str(caught.value)
    assert "very" not in str(caught.value)


def test_a_secrets_file_that_cannot_be_read_is_named_with_the_reason(
    given: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "HF_TOKEN").mkdir()
    with pytest.raises(Misconfigured, match=r"HF_TOKEN cannot be read \(Is a directory\)"):
        settings.load()
    (tmp_path / "HF_TOKEN").rmdir()
    (tmp_path / "HF_TOKEN").symlink_to("HF_TOKEN")  # which not even root can read
    with pytest.raises(Misconfigured, match=r"HF_TOKEN cannot be read \(Too many levels of symbolic links\)"):
        settings.load()
    given.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "gone"))
    with pytest.raises(Misconfigured, match=r"CREDENTIALS_DIRECTORY is .*gone, which is not a folder"):
        settings.load()


@pytest.mark.parametrize("odd", ["hf_ve ry", "hf_ve\nry", "hf_véry"])
def test_a_secret_that_no_header_can_hold_is_refused_and_not_repeated(
    given: pytest.MonkeyPatch, odd: str
) -> None:
    given.setenv("HF_TOKEN", odd)
    with pytest.raises(Misconfigured, match="HF_TOKEN is invalid") as caught:
        settings.load()
    assert odd not in str(caught.value)


def test_white_space_around_a_secret_is_no_part_of_it(given: pytest.MonkeyPatch) -> None:
    given.setenv("HF_TOKEN", " hf_very\n")
    assert settings.load().hf_token.get_secret_value() == "hf_very"


def test_the_publishable_key_in_place_of_the_secret_one_is_refused(given: pytest.MonkeyPatch) -> None:
    given.setenv("SUPABASE_SECRET_KEY", "sb_publishable_x")
    with pytest.raises(Misconfigured, match="publishable") as caught:
        settings.load()
    assert "sb_publishable_x" not in str(caught.value)


def test_a_lease_that_two_lost_renewals_would_end_is_refused(given: pytest.MonkeyPatch) -> None:
    given.setenv("WATCHER_LEASE", "10")
    with pytest.raises(Misconfigured, match="at most a third of WATCHER_LEASE"):
        settings.load()


def test_neither_the_settings_nor_a_complaint_about_them_show_a_secret(given: pytest.MonkeyPatch) -> None:
    loaded = settings.load()
    assert not any(secret in f"{loaded!r} {loaded} {loaded.model_dump()}" for secret in loaded.secrets)
    given.setenv("SUPABASE_URL", "hf_very")
    given.setenv("WATCHER_SLOTS", "sb_secret_very")
    with pytest.raises(Misconfigured) as caught:
        settings.load()
    assert "very" not in str(caught.value)


def test_the_spool_goes_where_systemd_made_a_folder_for_it(given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given.setenv("CACHE_DIRECTORY", str(tmp_path))
    given.setenv("WATCHER_INSTANCE", "attic")
    assert settings.load().spool == tmp_path / "attic"
    given.setenv("WATCHER_SPOOL", "/elsewhere")
    assert settings.load().spool == Path("/elsewhere/attic")


def test_migrating_needs_the_database_and_nothing_else(given: pytest.MonkeyPatch) -> None:
    for name in ALL:
        given.delenv(name)
    with pytest.raises(Misconfigured, match="SUPABASE_DB_URL is not set"):
        settings.load_database()
    given.setenv("SUPABASE_DB_URL", "postgresql://postgres:very@localhost/postgres")
    loaded = settings.load_database()
    assert "very" not in repr(loaded)
    assert loaded.db_url.get_secret_value().startswith("postgresql://postgres:very@")


def test_metrics_are_off_unless_an_address_of_this_host_alone_is_given(given: pytest.MonkeyPatch) -> None:
    assert settings.load().metrics is None
    for address, parts in {
        "127.0.0.1:9464": ("127.0.0.1", 9464),
        "127.9.9.9:1": ("127.9.9.9", 1),
        "[::1]:65535": ("::1", 65535),
    }.items():
        given.setenv("WATCHER_METRICS_ADDRESS", address)
        assert settings.load().metrics == parts
    for address, words in {
        "0.0.0.0:9464": "must be a loopback address",
        "[::]:9464": "must be a loopback address",
        "192.168.1.2:9464": "put a proxy that asks for one in front",
        "example.com:9464": "must be an address and a port",
        "9464": "must be an address and a port",
        "127.0.0.1": "must be an address and a port",
        "127.0.0.1:0": "must be an address and a port",
        "127.0.0.1:70000": "must be an address and a port",
    }.items():
        given.setenv("WATCHER_METRICS_ADDRESS", address)
        with pytest.raises(Misconfigured, match=f"WATCHER_METRICS_ADDRESS is invalid: .*{words}"):
            settings.load()
