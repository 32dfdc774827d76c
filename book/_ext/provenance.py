"""What made a page, and how to make it again."""

import json
import shlex
from html import escape
from pathlib import Path
from typing import Any

from runs import failed, place_of
from sphinx.config import Config


def cell(manifest: dict[str, Any], run: Path, config: Config) -> dict[str, Any]:
    """Return the notebook cell that says what made a page."""
    versions = ", ".join(
        f"{name} {manifest['versions'][name]}"
        for name in ("xailib", "python", "torch", "torchvision", "lime", "grad-cam")
    )
    task = manifest["task"]
    drawn = manifest["parameters"].get("seed")
    seed = "" if drawn is None else f"Seed\n: {drawn}\n\n"
    clone = ""
    if address := config.html_theme_options.get("repository_url"):
        clone = f"git clone {address} xailib && cd xailib && make .venv/ready\n"
    text = f"""(made-{task.replace("_", "-")})=
## Provenance

{_ingredients(manifest["inputs"])}

{seed}Run
: {manifest["finished"][:10]} in {manifest["seconds"]:.0f} s on {manifest["machine"]}, commit
  `{manifest["commit"]}`, {versions}. Full manifest, with the hash of every file:
  {{download}}`manifest.json <{place_of(run)}/manifest.json>`

:::{{admonition}} Reproduce this page
:class: tip reproduce

```bash
{clone}.venv/bin/papermill notebooks/{task}.ipynb out.ipynb {_words(manifest)}
```
:::
"""
    return {"cell_type": "markdown", "id": "provenance", "metadata": {}, "source": text}


def footer(folder: Path) -> str:
    """Return one line for the foot of every page: what the whole site was made from."""
    files = sorted(folder.glob("*/manifest.json"))
    manifests = [json.loads(f.read_text()) for f in files if f.parent.name not in failed()]
    if not manifests:
        return ""
    last = max(manifests, key=lambda manifest: str(manifest["finished"]))
    networks = {
        f"{weights['model']} (weights {weights['sha256'][:12]}…)"
        for manifest in manifests
        if (weights := manifest["inputs"].get("weights"))
    }
    images = {image for manifest in manifests for image in manifest["inputs"].get("images", ())}
    seeds = {str(m["parameters"]["seed"]) for m in manifests if "seed" in m["parameters"]}
    words = [
        f"Profile {folder.name}",
        *sorted(networks),
        f"{len(images)} photographs",
        f"seed {', '.join(sorted(seeds))}",
        f"run {last['finished'][:10]}, commit {last['commit']}",
        f"xailib {last['versions']['xailib']}, torch {last['versions']['torch']}",
    ]
    return f'<p class="provenance">{escape("; ".join(words))}.</p>'


def _words(manifest: dict[str, Any]) -> str:
    request = manifest.get("request", {}).get("parameters", {})
    return " ".join(
        "-y " + shlex.quote(f"{name}: {json.dumps(value, ensure_ascii=False)}")
        for name, value in request.items()
        if name != "out_dir"
    )


def _ingredients(inputs: dict[str, Any]) -> str:
    """Return what went into a run, as a definition list."""
    found: dict[str, str] = {}
    if weights := inputs.get("weights"):
        sha256 = weights["sha256"][:16]
        found["Network"] = f"{weights['model']}, weights `{weights['weights']}` (`{sha256}…`)"
    if images := inputs.get("images"):
        found["Photographs"] = ", ".join(images)
    if probe := inputs.get("probe"):
        source = ", ".join(probe["source"])
        found["Probe images"] = f"{probe['count']}, from {source}, {probe['crops']} crops each"
    if encoder := inputs.get("encoder"):
        found["Encoder"] = f"{encoder['label']} (`{encoder['sha256'][:16]}…`)"
    if concepts := inputs.get("concepts"):
        found["Concepts"] = f"{concepts['count']}, {concepts['source']}"
    if published := inputs.get("published"):
        found["The report's files"] = (
            f"github.com/{published['repository']}, commit `{published['commit'][:12]}` "
            f"({'stored tables' if published['source'] == 'kept' else published['source']})"
        )
    if runs := inputs.get("runs"):
        found["Input runs"] = ", ".join(f"`{run}`" for run in runs)
    return "\n\n".join(f"{name}\n: {text}" for name, text in found.items())
