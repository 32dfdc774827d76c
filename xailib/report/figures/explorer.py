"""All methods side by side, photograph by photograph: images and one table of scores.

Tables and explanations of finished runs in, images with words out; nothing here sees a network.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from IPython.display import display
from jaxtyping import Float32, UInt8

from xailib.compare.iou import in_frame_of
from xailib.compare.masks import area_mask, lime_mask
from xailib.explain.explanation import Explanation
from xailib.images.frames import Frame, resize
from xailib.report.figures import faithfulness
from xailib.report.figures import style as figures
from xailib.report.figures.publish import AnyPixels, save_data, save_image, table_html
from xailib.report.run.results import Run

SIDE = 448  # pixels, about; maps are enlarged to it
_DOWN, _ACROSS = ("upper", "middle", "lower"), ("left", "centre", "right")
HEADINGS = {
    "name": "method", "iou": "IoU with LIME", "chance": "chance level", "deletion": "deletion ↓",
    "insertion": "insertion ↑", "flipping": "region flipping ↑", "road": "ROAD ↑",
    "inside": "mask inside box",
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """One image of a photograph's page."""

    method: str  #: which row of the table it belongs to; a row may have several images
    label: str  #: of its tab
    alt: str  #: alternative text for readers who cannot see it
    pixels: AnyPixels


def scores_of(
    image: str, agreement: pd.DataFrame, scores: pd.DataFrame, localised: pd.DataFrame | None
) -> pd.DataFrame:
    """Return one photograph's scores, one row a method, LIME first; NaN where there is none.

    ``agreement`` is from `xailib.compare.iou.lime_cam_agreement`, ``scores`` from
    `xailib.evaluate.scores.curve_scores`, ``localised`` from
    `xailib.compare.localisation.localisation`; the columns are method, name, and `HEADINGS`.
    """
    own = scores[scores["image"] == image]
    table = own.pivot_table(index="method", columns="measure", values="value", sort=False)
    table = table.reindex(columns=["deletion", "insertion", "flipping", "road"])
    pairs = agreement[(agreement["image"] == image) & (agreement["lime"] == "LIME 1")]
    table[["iou", "chance"]] = pairs.set_index("cam")[["iou", "chance"]]
    table["inside"] = np.nan
    if localised is not None and len(localised):
        boxed = localised[localised["image"] == image].set_index("map")["precision"]
        table["inside"] = boxed.rename({"lime+": "lime"})
    table.insert(0, "name", [name_of(method) for method in table.index])
    return table.rename_axis(columns=None).reset_index()


def name_of(method: str) -> str:
    """Return a method's name for people; of a baseline, also that it is one."""
    more = " (uninformative baseline)" if method in faithfulness.BASELINE_NAMES else ""
    return faithfulness.name_of(method) + more


def views_of(
    pixels: UInt8[np.ndarray, "height width 3"],
    lime: Explanation,
    cams: Sequence[Explanation],
    num_features: int = 10,
) -> list[View]:
    """Return the images of one photograph: itself, LIME's, and each heatmap with its overlap.

    All are in the frame of LIME's explanation, enlarged to about `SIDE` pixels. Of an explanation
    that says nothing, the view in gray and the reason in words.
    """
    fine = enlarged(lime.frame)
    view = fine.show(pixels)
    mask = lime_mask(lime, num_features, "positive")
    both = lime_mask(lime, num_features, "both")
    said = f"of {lime.image} for {lime.target_name}"
    chosen = mask != 0
    weights = resize(lime.saliency, fine.size, "nearest")
    found = [View("", "photograph", f"The photograph {lime.image} as the network's input", view)]
    if lime.no_signal:
        found.append(_silent(lime, view, said))
    else:
        alt = f"LIME's weights {said}: highest in the {place(lime.saliency)}"
        found.append(View("lime", "LIME weights", alt, figures.signed_heat(view, weights)))
        for label, one, words in (
            ("LIME 1", mask, "supporting superpixels"),
            ("LIME 2", both, "largest absolute weights"),
        ):
            alt = f"{label} {said}: {words}, on {(one != 0).mean():.0%} of the view"
            found.append(View("lime", label, alt, figures.outlined(view, _grown(one, fine))))
    for cam in cams:
        if cam.no_signal:
            found.append(_silent(cam, view, said))
            continue
        saliency, name = in_frame_of(cam, lime), name_of(cam.method)
        large = np.clip(resize(saliency, fine.size, "bilinear"), 0, 1)
        alt = f"{name} {said}: highest in the {place(saliency)}, above half of its maximum on "
        alt += f"{(saliency > 0.5).mean():.0%} of the view"
        found.append(View(cam.method, name, alt, figures.heat(view, large)))
        if not lime.no_signal:
            cut = area_mask(saliency, int(chosen.sum()))
            share = (chosen & cut).sum() / max(1, chosen.sum())
            alt = f"{name} {said}, thresholded to LIME's area: covers {share:.0%} of LIME 1"
            masks = _grown(chosen, fine), _grown(cut, fine)
            overlap = figures.two_masks(view, *masks, cam.method)
            found.append(View(cam.method, f"{name} and LIME 1", alt, overlap))
    return found


def _silent(one: Explanation, view: AnyPixels, said: str) -> View:
    gray = np.round(view.mean(axis=2, keepdims=True)).astype(np.uint8).repeat(3, axis=2)
    name = name_of(one.method)
    alt = f"{name} {said} says nothing: {one.no_signal}"
    return View(one.method, f"{name}: no signal", alt, gray)


def place(saliency: Float32[np.ndarray, "height width"]) -> str:
    """Return in words where a map is highest: which of nine parts of the view."""
    row, column = np.unravel_index(int(np.argmax(saliency)), saliency.shape)
    down = _DOWN[3 * int(row) // saliency.shape[0]]
    across = _ACROSS[3 * int(column) // saliency.shape[1]]
    return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"


def anchor(image: str) -> str:
    """Return the name of a photograph's place on the page."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in image.lower())
    # Names that differ only in what is taken out, as in another script, have places of their own.
    more = "" if plain == image else f"-{hashlib.sha256(image.encode()).hexdigest()[:6]}"
    return f"explore-{plain}{more}"


def publish_photograph(
    run: Run,
    lime: Explanation,
    views: Sequence[View],
    scores: pd.DataFrame,
    live: Mapping[str, str] | None = None,
) -> None:
    """Save and show one photograph's images, on the site side by side in tabs, with its table.

    Writes ``figures/NAME-N.webp`` and ``figures/NAME.csv``; NAME is the photograph's `anchor`.
    ``lime`` is LIME's explanation of it, ``views`` are from `views_of`, the first the photograph
    itself, ``scores`` from `scores_of`, and ``live`` has the entries of
    `xailib.report.figures.live.Live`, for the page to compute other classes.
    """
    name = anchor(lime.image)
    caption = (
        f"All methods on *{figures.verbatim(lime.image)}*, explained class "
        f"{figures.verbatim(lime.target_name)} (probability "
        f"{lime.probability:.2f}). LIME: red supports, blue opposes; LIME 1 and LIME 2 outline "
        "the selected superpixels. Heatmaps: bright is salient. Overlaps: white both, orange only "
        "LIME 1, any other colour only the heatmap."
    )
    shown = {key: heading for key, heading in HEADINGS.items() if scores[key].notna().any()}
    html = table_html(scores, name, shown, dict.fromkeys(shown.keys() - {"name"}, "{:.2f}"))
    images = []
    for index, view in enumerate(views):
        path = f"figures/{name}-{index}.webp"
        save_image(run, path, view.pixels)
        images.append({"image": path, "method": view.method, "label": view.label, "alt": view.alt})
    site = {
        "name": name, "explorer": lime.image, "heading": figures.verbatim(lime.image),
        "caption": caption, "views": images, "rows": scores["method"].tolist(),
        "data": save_data(run, name, scores), "live": dict(live or {}),
    }  # fmt: skip
    display({"text/html": html, "text/plain": caption}, raw=True, metadata={"xailib": site})


def enlarged(frame: Frame) -> Frame:
    """Return a frame of the same part of the photograph, of about `SIDE` pixels."""
    times = max(1, round(SIDE / max(frame.size)))
    top, left, height, width = (times * value for value in frame.crop)
    resized = (times * frame.resized[0], times * frame.resized[1])
    return Frame(frame.photograph, resized, (top, left, height, width))


def _grown(mask: np.ndarray, fine: Frame) -> np.ndarray:
    return resize(mask.astype(np.float32), fine.size, "nearest").astype(mask.dtype)
