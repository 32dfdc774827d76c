"""Files from elsewhere: fetched by address, checked by hash, cached; a registry of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "fetch": ["cache_folder", "download"],
        "registry": ["Artefact", "artefacts"],
    },
)
