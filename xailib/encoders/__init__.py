"""Image-text encoders: CLIP, OpenCLIP and the ConSE surrogate."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "load": ["ConseEncoder", "Encoder", "load_encoder"],
        "sentences": ["load_sentences"],
    },
)
