"""What the HTTP clients and huggingface_hub read from the environment: a value that they cannot use is named first."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import httpx2
import pytest

from tests.support.waiting import PATIENCE
from watcher.settings.settings import environment as inherited
from watcher.settings.surroundings import notices, problems

# Values that end in an exception of a library, or make every request fail; and what is said of them.
HARMFUL: dict[str, tuple[dict[str, str], str]] = {
    "a SOCKS proxy": (
        {"ALL_PROXY": "socks5://127.0.0.1:1080"},
        "ALL_PROXY is socks5://127.0.0.1:1080, and only HTTP",
    ),
    "a SOCKS proxy for all sockets": (
        {"SOCKS_PROXY": "socks4://h:1"},
        "SOCKS_PROXY is socks4://h:1, and only HTTP",
    ),
    "a proxy's password": (
        {"HTTPS_PROXY": "socks5h://me:secret@h:1"},
        "HTTPS_PROXY is socks5h://…@h:1, and only",
    ),
    "no scheme": ({"HTTPS_PROXY": "me:secret@proxy:3128"}, "HTTPS_PROXY is …@proxy:3128, without a scheme"),
    "no host": ({"HTTP_PROXY": "http://"}, "HTTP_PROXY is http://, which is not a valid URL"),
    "no port": (
        {"HTTP_PROXY": "http://proxy:port"},
        "HTTP_PROXY is http://proxy:port, which is not a valid URL",
    ),
    "too high a port": ({"HTTP_PROXY": "http://proxy:99999"}, "which is not a valid URL"),
    "a control character": (
        {"HTTP_PROXY": "http://pro\x1bxy:1"},
        "HTTP_PROXY is http://pro?xy:1, which is not a",
    ),
    "lower case": (
        {"https_proxy": "ftp://proxy:21", "HTTPS_PROXY": ""},
        "https_proxy is ftp://proxy:21, and only",
    ),
    "an address in brackets": ({"NO_PROXY": "localhost,[::1]"}, "NO_PROXY has the entry [::1], which"),
    "a range of IPv6": ({"no_proxy": "10.0.0.0/8, fd00::/8"}, "no_proxy has the entry fd00::/8, which"),
    "an odd entry": ({"NO_PROXY": "proxy:port"}, "NO_PROXY has the entry proxy:port, which"),
    "no such file": (
        {"SSL_CERT_FILE": "/nowhere/ca.pem"},
        "SSL_CERT_FILE is /nowhere/ca.pem, which is not a file",
    ),
    "a folder": ({"SSL_CERT_FILE": "/usr"}, "SSL_CERT_FILE is /usr, which is not a file"),
    "a device": ({"SSL_CERT_FILE": "/dev/zero"}, "SSL_CERT_FILE is /dev/zero, which is not a file"),
    "no certificates": ({"SSL_CERT_FILE": __file__}, "which has no certificates"),
    "no such folder": (
        {"SSL_CERT_DIR": "/nowhere"},
        "SSL_CERT_DIR is /nowhere, where OpenSSL finds no certificate",
    ),
    "a folder of something else": (
        {"SSL_CERT_DIR": "/usr:/nowhere"},
        "SSL_CERT_DIR is /usr:/nowhere, where OpenSSL",
    ),
    "no network": ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is 1, which forbids every request to the Hub"),
    "no network for transformers": (
        {"TRANSFORMERS_OFFLINE": "yes"},
        "TRANSFORMERS_OFFLINE is yes, which forbids",
    ),
}
HARMLESS = [
    {},
    {"HTTP_PROXY": "http://proxy:3128", "HTTPS_PROXY": "https://me:secret@[fd00::1]:3128/", "ALL_PROXY": ""},
    {"NO_PROXY": "*"},
    {"NO_PROXY": "localhost, 127.0.0.1,::1,10.0.0.0/8,.example.com,*.example.org,http://a.example,a:8080,,"},
    {"https_proxy": "http://proxy:3128", "HTTPS_PROXY": "socks5://not-used:1080"},
    {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""},
    {
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "",
        "HF_HUB_ETAG_TIMEOUT": "soon",
        "HF_HUB_VERBOSITY": "odd",
    },
]


@pytest.mark.parametrize("case", HARMFUL)
def test_a_value_that_cannot_be_used_is_named_without_a_password(case: str) -> None:
    environment, says = HARMFUL[case]
    [sentence] = problems(environment)
    assert says in sentence
    assert "secret" not in sentence
    assert sentence.isprintable()


@pytest.mark.parametrize("environment", HARMLESS)
def test_a_value_that_can_be_used_is_passed_over_and_the_clients_take_it(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in inherited():
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert list(problems(environment)) == []
    with httpx.Client(), httpx2.Client():
        pass


def test_a_folder_of_certificates_is_known_by_the_names_that_openssl_looks_for(tmp_path: Path) -> None:
    environment = {"SSL_CERT_DIR": f"/nowhere:{tmp_path}"}
    (tmp_path / "ca.pem").touch()
    assert len(list(problems(environment))) == 1
    (tmp_path / "0a1b2c3d.0").touch()
    assert list(problems(environment)) == []


def test_a_pipe_in_place_of_certificates_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    [sentence] = problems({"SSL_CERT_FILE": str(tmp_path / "pipe")})
    assert "which is not a file" in sentence


def test_what_has_no_effect_is_said() -> None:
    environment = {
        "WATCHER_SLOT": "8", "WATCHER_SLOTS": "4", "WATCHER_ELSEWHERE": "x", "REQUESTS_CA_BUNDLE": "/ca.pem"
    }  # fmt: skip
    assert list(notices(environment, ["WATCHER_SLOTS", "WATCHER_SPOOL", "HF_TOKEN"])) == [
        "WATCHER_ELSEWHERE is not a setting: unset it, or see the table of settings.",
        "WATCHER_SLOT is not a setting: did you mean WATCHER_SLOTS?",
        "REQUESTS_CA_BUNDLE is not used: if this host needs these certificates, set SSL_CERT_FILE to them.",
    ]
    assert list(notices({"REQUESTS_CA_BUNDLE": "/ca.pem", "SSL_CERT_FILE": "/ca.pem"}, [])) == []


@pytest.mark.parametrize("command", ["run", "status", "doctor"])
def test_the_commands_end_with_the_sentence_and_the_code_of_a_wrong_setting(
    command: str, tmp_path: Path
) -> None:
    environment = {
        "PATH": inherited()["PATH"], "HOME": str(tmp_path), "ALL_PROXY": "socks5://127.0.0.1:1080",
        "SUPABASE_URL": "https://abc.supabase.co", "SUPABASE_SECRET_KEY": "sb_secret_x", "HF_TOKEN": "hf_x",
        "HF_HUB_ETAG_TIMEOUT": "soon",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "watcher", command],
        env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == (2 if command == "doctor" else 78), done.stderr
    assert (
        "ALL_PROXY is socks5://127.0.0.1:1080, and only HTTP proxies can be used" in done.stdout + done.stderr
    )
    assert "Traceback" not in done.stderr
