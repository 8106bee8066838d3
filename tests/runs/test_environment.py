import subprocess

import pytest

from deeplab_lit.runs import environment
from deeplab_lit.runs.environment import git_commit


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder that is taken for the package's."""
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "record.py"))
    for key in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def test_the_commit_is_known_and_marked_when_changed(source):
    def git(*args):
        name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        run = subprocess.run(["git", *name, *args], cwd=source, check=True, capture_output=True)
        return run.stdout.decode().strip()

    assert git_commit() is None  # outside a repository
    git("init")
    assert git_commit() is None  # nothing committed
    (source / "record.py").write_text("1")
    git("add", "record.py")
    git("commit", "-m", "first")
    assert git_commit() == git("rev-parse", "HEAD")
    (source / "untracked").write_text("")
    assert git_commit() == git("rev-parse", "HEAD")
    (source / "record.py").write_text("2")
    assert git_commit() == git("rev-parse", "HEAD") + "+"


def test_no_commit_is_known_where_git_is_missing(source, monkeypatch):
    monkeypatch.setenv("PATH", str(source))
    assert git_commit() is None
