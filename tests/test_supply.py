"""What the project is made of: pinned with hashes, licences stated, no secrets, few rights."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from faults_table import shown
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"}
PYTHONS = ["3.11", "3.12", "3.13"]


def pins(python: str | None = None) -> dict[str, str]:
    """The exact versions for a Python, or for any."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return versions((Requirement(line) for line in lines if not line.startswith("#")), python)


def versions(requirements, python: str | None) -> dict[str, str]:
    here = {**LINUX, "python_version": python, "python_full_version": f"{python}.9"}
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in requirements
        if python is None or one.marker is None or one.marker.evaluate(here)
    }


def locked() -> list[tuple[Requirement, list[str]]]:
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            words, *hashes = re.split(r"\s+--hash=", line.strip())
            found.append((Requirement(words), hashes))
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_pin_is_locked_with_hashes_and_nothing_else_is(python):
    assert versions((one for one, _ in locked()), python) == pins(python)
    for one, hashes in locked():
        assert hashes, one
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", sha256) for sha256 in hashes), one


def test_what_is_declared_is_pinned():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["report"], *extras["dev"]]
    for one in map(Requirement, declared):
        for python in PYTHONS:
            assert pins(python)[canonicalize_name(one.name)] in one.specifier, one


def test_one_range_of_pythons_is_named_everywhere():
    wanted = {
        "pyproject.toml": 'requires-python = ">=3.11,<3.14"',
        "environment.yml": "python>=3.11,<3.14",
        "Makefile": "(3, 11) <= sys.version_info[:2] <= (3, 13)",
        ".github/workflows/test.yml": f"python: {json.dumps(PYTHONS)}",
    }
    for name, text in wanted.items():
        assert text in (ROOT / name).read_text(), name


@pytest.mark.parametrize(("found", "code"), [((3, 10), 2), ((3, 13), 0), ((3, 14), 2)])
def test_another_python_is_refused_in_one_line(tmp_path, found, code):
    """By the first command of the README, before anything is made."""
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"""#!/bin/sh
case "$1" in
-c) exec {sys.executable} -c "import sys; sys.version_info = {found}; $2" ;;
*) mkdir -p .venv/bin && ln -s /bin/true .venv/bin/python ;;
esac
"""
    )
    stand_in.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    command = ["make", "-s", ".venv/ready", f"PYTHON={stand_in}", "BIN=.venv/bin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    line = f"{stand_in} is not Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12"
    assert (line in done.stdout) == (code != 0)
    assert (tmp_path / ".venv").exists() == (code == 0)


def test_no_address_of_an_index_is_written_down():
    """Whoever installs decides where from."""
    for name in ("requirements.lock", "constraints.txt", "Makefile", "pyproject.toml"):
        assert not re.search(r"index-url|find-links|https?://", (ROOT / name).read_text()), name


def test_the_licence_of_every_pinned_package_is_stated():
    with (ROOT / "book" / "_data" / "licences.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {canonicalize_name(row["package"]): row["version"] for row in rows} == pins()
    for row in rows:
        assert row["licence"] not in ("", "UNKNOWN", "not stated"), row


def test_the_licence_of_all_weights_is_stated_with_the_place_that_states_it():
    rows = []
    for name in ("weights", "fetched"):
        with (ROOT / "book" / "_data" / f"{name}.csv").open(encoding="utf-8") as file:
            rows += csv.DictReader(file)
    for row in rows:
        assert row["licence"], row
        assert row["stated in"], row
        known = row["licence"] != "none stated" and ("what" not in row or "fetched" in row["what"])
        if known:
            assert "](http" in row["stated in"] or "configuration" in row["stated in"], row


def test_the_table_of_fetched_files_is_the_registrys():
    spec = importlib.util.spec_from_file_location("licences", ROOT / "benchmarks" / "licences.py")
    licences = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(licences)
    with (ROOT / "book" / "_data" / "fetched.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == licences.fetched()


def audited(out: str, error: str, code: int) -> subprocess.CompletedProcess:
    """What `make audit` makes of a pip-audit that says this."""
    stand_in = f"import sys; print({out!r}, end=''); sys.stderr.write({error!r}); sys.exit({code})"
    script = str(ROOT / "benchmarks" / "audit.py")
    command = [sys.executable, script, sys.executable, "-c", stand_in]
    return subprocess.run(command, capture_output=True, text=True, check=False)


TRACEBACK = """Traceback (most recent call last):
  File "x/pip_audit/_service/pypi.py", line 61, in query
requests.exceptions.ProxyError: no answer
"""


def test_an_audit_without_an_answer_is_one_line():
    done = audited("", TRACEBACK, 1)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(shown("audit"), done.stderr.strip())
    told = "ERROR:pip_audit._cli:no feed\nERROR:pip_audit._cli:Tip: try another\n"
    assert "its service: no feed; it needs" in audited("", told, 1).stderr


def test_an_audit_with_an_answer_is_passed_on():
    done = audited("name version id\nx 1 CVE\n", "Found 1\n", 1)
    assert (done.returncode, done.stdout) == (1, "name version id\nx 1 CVE\nFound 1\n")
    done = audited("", "No known vulnerabilities found\n", 0)
    assert (done.returncode, done.stdout) == (0, "No known vulnerabilities found\n")


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_may_read_and_no_more(file):
    """Also: no secret is used, and every action is pinned to a commit."""
    text = file.read_text()
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    assert "pull_request_target" not in text
    for job in flow["jobs"].values():
        assert "permissions" not in job
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


SECRETS = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "cloud key": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "forge token": r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{50,}|glpat-[\w-]{20})",
    "index token": r"\bpypi-[A-Za-z0-9_-]{40,}",
    "hub token": r"\bhf_[A-Za-z0-9]{30,}",
    "service key": r"\b(sk-[A-Za-z0-9_-]{32,}|xox[abpr]-[\w-]{20,}|AIza[\w-]{35})",
    # Tests may name one for this machine.
    "password in an address": r"[a-z]+://[^/\s:@'\"{}<>]+:[^/\s:@'\"{}<>]+@(?!127\.0\.0\.1)",
}


def secrets_in(text: str) -> list[str]:
    return [what for what, pattern in SECRETS.items() if re.search(pattern, text)]


def test_no_secret_is_among_the_files():
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a clone")
    for name in filter(None, done.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            assert not secrets_in(path.read_text(encoding="utf-8", errors="replace")), name
        assert path.suffix not in {".pem", ".key", ".p12"}, name
        assert path.name not in {".env", ".netrc", ".pypirc"}, name


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE" + " KEY-----",
        "AKIA" + "A" * 16,
        "gh" + "p_" + "a" * 36,
        "hf" + "_" + "a" * 34,
        "https://me:word" + "@example.org",
    ],
)
def test_a_secret_would_be_found(text):
    assert len(secrets_in(f"x = '{text}'")) == 1
