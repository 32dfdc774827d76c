"""Score-CAM (Wang et al. 2020): a channel counts by the score of the image seen through it."""

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from xailib.networks.classifier import Classifier, PassOptions


def score_weights(
    classifier: Classifier,
    images: Float32[Tensor, "images colours height width"],
    maps: Float[Tensor, "images channels rows columns"],
    targets: Int[Tensor, "images targets"],
    options: PassOptions,
) -> tuple[Float[Tensor, "images targets channels"], str]:
    """Return each channel's weight, and the engine that the passes were made with.

    A map is enlarged to the image, scaled to [0, 1], and multiplied with the network's input; the
    weights are the softmax, over the channels, of the target's logits. Masked images are made a
    batch at a time. A map that is zero everywhere gives the zero input, whichever channel it is, so
    that one pass serves all of these.
    """
    count = maps.shape[1]
    dead = (maps == 0).flatten(2).all(2)
    first = dead & (dead.cumsum(1) == 1)  # of an image's dead ones
    owner, channels = torch.nonzero(~dead | first, as_tuple=True)
    size = images.shape[-2:]

    def masked(start: int, stop: int) -> Tensor:
        whose = owner[start:stop]
        some = maps[whose, channels[start:stop]][None]
        large = F.interpolate(some, size=size, mode="bilinear", align_corners=True)
        low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
        large = (large - low) / (high - low + 1e-8)
        image = images[whose] if len(images) > 1 else images
        return (image * large.movedim(1, 0)).contiguous(memory_format=torch.channels_last)

    found = classifier.forward_batches(masked, len(owner), **options)
    logits = found.logits.gather(1, targets[owner])
    scores = logits.new_zeros(len(maps), count, targets.shape[1])
    scores[owner, channels] = logits
    zero = (scores * first[..., None]).sum(1, keepdim=True)  # the score of the zero input
    scores = torch.where(dead[..., None], zero, scores)
    return scores.movedim(1, 2).contiguous().softmax(2), found.engine
