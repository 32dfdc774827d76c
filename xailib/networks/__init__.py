"""Classifiers: networks with their weights, preprocessing, layers and fast forward passes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classifier": ["Classifier", "Prediction", "View", "classifier_from", "load_classifier"],
        "zoo": ["imagenet_classes"],
        "forward": ["forward_batches"],
        "layers": ["recorded"],
    },
)
