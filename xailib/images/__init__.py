"""Images: read files, folders, packaged names and published sets; frames of crops."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "load": ["Failure", "ImageSet", "Photograph", "from_array", "iter_images", "load_images"],
        "frames": ["Frame", "change_frame"],
        "packaged": ["packaged_names"],
        "probe": ["ProbeImage", "ProbeSet", "load_probe"],
        "archives": ["fetch_images"],
    },
)
