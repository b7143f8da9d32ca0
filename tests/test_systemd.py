"""What systemd and Prometheus are given: as far as that can be judged without running them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.waiting import PATIENCE
from watcher.process import metrics
from watcher.publishing import publisher
from watcher.settings.settings import Settings

FOLDER = Path(__file__).parent.parent / "systemd"
UNIT = FOLDER / "watcher.service"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "watcher.rules.yml").read_text())["groups"][0]["rules"]

analyzed = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="asks systemd-analyze")


def analyze(*arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    return done.stdout + done.stderr


@analyzed
@pytest.mark.parametrize("name", ["watcher.service", "watcher@.service", "watcher-check.timer"])
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path, name: str) -> None:
    for unit in FOLDER.iterdir():
        if unit.suffix in {".service", ".timer"}:
            text = unit.read_text().replace("/opt/watcher/bin/watcher", "/bin/true")
            (tmp_path / unit.name).write_text(text)
    assert analyze("verify", str(tmp_path / name.replace("@", "@one"))) == ""


def test_the_template_is_the_unit_with_names_of_its_own() -> None:
    unit, template = (
        [line for line in file.read_text().splitlines() if not line.startswith("Description=")]
        for file in (UNIT, FOLDER / "watcher@.service")
    )
    own = [
        "EnvironmentFile=-/etc/watcher/%i.env",
        "Environment=WATCHER_INSTANCE=%l-%i",
        "CacheDirectory=watcher-%i",
    ]
    assert [line for line in template if line not in unit] == own
    assert [line for line in unit if line not in template] == ["CacheDirectory=watcher"]


@analyzed
@pytest.mark.parametrize("name", ["watcher.service", "watcher@.service", "watcher-check.service"])
def test_the_units_expose_little_of_the_host(tmp_path: Path, name: str) -> None:
    unit = tmp_path / name.replace("@", "@one")
    shutil.copy(FOLDER / name, unit)
    [level] = re.findall(r"exposure level for \S+: (\S+)", analyze("security", "--offline=true", str(unit)))
    assert float(level) <= 1.1


def test_the_morning_check_fails_for_errors_and_not_for_warnings() -> None:
    lines = (FOLDER / "watcher-check.service").read_text().splitlines()
    assert "Type=oneshot" in lines
    assert "ExecStart=/opt/watcher/bin/watcher doctor" in lines  # 1: warnings, 2: errors
    assert [line for line in lines if line.startswith("SuccessExitStatus=")] == ["SuccessExitStatus=1"]
    assert "Persistent=yes" in (FOLDER / "watcher-check.timer").read_text().splitlines()


def test_the_unit_speaks_the_daemons_language() -> None:
    lines = UNIT.read_text().splitlines()
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "TimeoutStartSec=infinity",
        "RestartPreventExitStatus=78 203 243",
        "EnvironmentFile=-/etc/watcher/watcher.env",
        "SetCredential=HF_TOKEN:\\n",
        "SetCredential=SUPABASE_SECRET_KEY:\\n",
        "LoadCredential=SUPABASE_SECRET_KEY:/etc/watcher/SUPABASE_SECRET_KEY",
        "LoadCredential=HF_TOKEN:/etc/watcher/HF_TOKEN",
        "LoadCredential=WATCHER_TRAINING_TOKEN:/etc/watcher/WATCHER_TRAINING_TOKEN",
        "SetCredential=WATCHER_TRAINING_TOKEN:\\n",
        *(
            f"LoadCredential=WATCHER_NOTIFY_{name}:/etc/watcher/WATCHER_NOTIFY_{name}"
            for name in ("URL", "SECRET")
        ),
        *(f"SetCredential=WATCHER_NOTIFY_{name}:\\n" for name in ("URL", "SECRET")),
    ):
        assert line in lines


def test_the_unit_has_room_for_the_threads_files_and_connections_of_the_largest_settings() -> None:
    limits = dict(re.findall(r"^(TasksMax|LimitNOFILE)=(\d+)$", UNIT.read_text(), re.MULTILINE))
    slots, fetches = (
        next(rule.le for rule in Settings.model_fields[name].metadata if hasattr(rule, "le"))
        for name in ("slots", "fetches")
    )
    batches = slots  # see the limit `uploads` in watcher/app.py
    # Twice, since a thread whose row was released goes on until the Hub answers.
    assert 2 * batches * (1 + publisher._MOST_PARALLEL) + 100 < int(limits["TasksMax"])
    assert 2 * (2 * batches * publisher._MOST_PARALLEL + fetches) + 500 < int(limits["LimitNOFILE"])


def test_there_are_ten_alerts_and_each_says_what_happened_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == 10
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"].endswith((".", "instead."))
        assert "`" in rule["annotations"]["action"], "A command to begin with."


def test_a_pause_of_one_kind_of_work_silences_no_alert_about_another() -> None:
    silenced = {
        rule["alert"]: re.findall(r'watcher_paused(?:\{kind="(\w+)"\})?', rule["expr"]) for rule in RULES
    }
    assert {alert: kinds for alert, kinds in silenced.items() if kinds} == {
        "WatcherRowsWait": ["publish"],
        "WatcherErasureOpen": ["erase"],
    }


def test_every_series_and_label_that_an_alert_names_exists() -> None:
    known = set(re.findall(r"^# TYPE (\w+)", metrics.exposition().decode(), re.MULTILINE))
    for rule in RULES:
        named = re.findall(r"\b(watcher_\w+|up)\b(?:\{([^}]*)\})?", rule["expr"])
        assert named, rule
        for series, selector in named:
            assert series in known | {"up"}, series
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', selector):
                # A counter shows all its labels from the start; the table's rows are counted once somebody asks.
                exposed = (
                    metrics.exposition().decode()
                    + 'job="watcher" status="pending" state="overdue" state="doubled" kind="publish" kind="erase"'
                )
                assert all(f'{label}="{one}"' in exposed for one in value.split("|")), (label, value)
