"""Files from elsewhere, fetched, checked, cached: by address, in a registry, or by network."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "fetch": ["cache_folder", "download"],
        "names": ["networks", "published_weights"],
        "registry": ["Artefact", "artefacts"],
    },
)
