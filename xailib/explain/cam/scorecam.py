"""Score-CAM (Wang et al. 2020): a channel counts by the score of the picture seen through it."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from xailib.networks.classifier import BATCH, Classifier


def score_weights(
    classifier: Classifier,
    picture: Float32[Tensor, "1 colours height width"],
    maps: Float[Tensor, "1 channels rows columns"],
    target: int,
    *,
    batch_size: int = BATCH,
    engine: str = "auto",
) -> tuple[Float[Tensor, " channels"], str]:
    """Return each channel's weight, and the engine that the passes were made with.

    A map is enlarged to the picture, scaled to [0, 1], and multiplied with the network's input;
    the weights are the softmax, over the channels, of the target's logits. Masked pictures are
    made a batch at a time. A map that is zero everywhere gives the zero input, whichever
    channel it is, so that one pass serves all of these.

    Parameters
    ----------
    classifier
        What is explained.
    picture : (1, colours, height, width)
        The network's input.
    maps : (1, channels, rows, columns)
        What the layer puts out for it.
    target : int
        The explained category's index.
    batch_size, engine
        See `xailib.networks.forward.forward_batches`.
    """
    dead = (maps[0] == 0).flatten(1).all(1)
    channels = torch.cat([torch.nonzero(~dead)[:, 0], torch.nonzero(dead)[:1, 0]])
    size = picture.shape[-2:]

    def masked(start: int, stop: int) -> Tensor:
        some = maps[:, channels[start:stop]]
        large = F.interpolate(some, size=size, mode="bilinear", align_corners=True)
        low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
        large = (large - low) / (high - low + 1e-8)
        return (picture * large.movedim(1, 0)).contiguous(memory_format=torch.channels_last)

    found = classifier.forward_batches(masked, len(channels), batch_size=batch_size, engine=engine)
    logits = found.logits[:, target]
    scores = logits[-1].expand(len(dead)).clone()  # the dead ones' score, if there are any
    scores[channels] = logits
    return scores.softmax(0), found.engine
