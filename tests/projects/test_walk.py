"""Open-source projects that know nothing of the workbench, walked through five points of their history."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.throwaway import EVERYTHING, PROJECT, environment

# Outlives the run: a second one downloads nothing.
INSTALLED = PROJECT / ".workbench" / "projects"


@dataclass(frozen=True)
class Project:
    """A project, the app to walk and the points to stop at.

    ``exceptions`` are all that may, and must, differ between the tables and the models.
    """

    name: str
    app: str
    points: Sequence[str]
    exceptions: Sequence[str]


PROJECTS = [
    Project(
        "wagtail",
        "wagtailcore",
        [
            "0028_merge",
            "0052_pagelogentry",
            "0069_log_entry_jsonfield",
            "0081_populate_workflowstate_content_type",
            "0097_baselogentry_uuid_action_timestamp_indexes",
        ],
        [
            # set_page_path_collation and set_collection_path_collation, RunPython of 0001 and 0027.
            f'wagtailcore: ~ {table} column path: varchar(255) NOT NULL → varchar(255) COLLATE "C" NOT NULL'
            for table in ("wagtailcore_page", "wagtailcore_collection")
        ],
    ),
    Project(
        "oscar",
        "catalogue",
        [
            "0013_auto_20170821_1548",
            "0017_auto_20190816_0938",
            "0023_auto_20210824_1414",
            "0027_attributeoption_code_attributeoptiongroup_code_and_more",
            # 0030 makes a materialized view in a RunPython: an unmanaged model reads it, and a snapshot, of
            # tables only, has none.
            "0032_category_exclude_from_menu_category_long_description",
        ],
        [
            # customer.0005 makes it; communication.0001 takes the table over, in a SeparateDatabaseAndState
            # without db_index.
            "communication: + communication_notification index customer_notification_date_sent_9b6baeda: "
            "btree (date_sent)",
        ],
    ),
]


def installed(project: Project) -> Path:
    """Return a folder with the project's packages, all pure Python."""
    requirements = PROJECT / "tests" / "projects" / f"requirements-{project.name}.txt"
    known = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = INSTALLED / f"{project.name}-{known}"
    if not folder.exists():
        INSTALLED.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=INSTALLED) as unfinished:
            target = Path(unfinished, "packages")
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            command += ["--no-deps", "--target", str(target), "-r", str(requirements)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
            assert done.returncode == 0, done.stderr
            target.rename(folder)
    return folder


@pytest.mark.skipif(
    not os.environ.get(EVERYTHING),
    reason=f"installs a project from PyPI, and takes half a minute: set {EVERYTHING}",
)
@pytest.mark.parametrize("project", PROJECTS, ids=[project.name for project in PROJECTS])
def test_at_every_stop_the_tables_are_what_models_at_says(project: Project, scratch_url: str) -> None:
    changes = {
        "DATABASE_URL": scratch_url,
        "DJANGO_SETTINGS_MODULE": f"tests.projects.settings_{project.name}",
        "PYTHONPATH": str(installed(project)),
        # Nothing here needs to survive the server.
        "PGOPTIONS": "-c synchronous_commit=off",
    }
    command = [sys.executable, "-m", "tests.projects.walk", project.app, *project.points]
    walk = subprocess.run(
        command, cwd=PROJECT, env=environment(changes), capture_output=True, encoding="utf-8", timeout=240
    )
    assert walk.returncode == 0, walk.stderr
    stops = [json.loads(line) for line in walk.stdout.splitlines()]
    assert [stop["point"] for stop in stops] == [*project.points, *reversed(project.points[:-1])]
    unexplained = [
        f"{stop['point']}: {said}"
        for stop in stops
        for said in stop["differences"]
        if said not in project.exceptions
    ]
    assert not unexplained, "\n".join(unexplained)
    assert {said for stop in stops for said in stop["differences"]} == {*project.exceptions}
