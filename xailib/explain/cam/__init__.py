"""Class activation maps: Grad-CAM and its relatives, AblationCAM, ScoreCAM."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "methods": ["METHODS", "cam_layer_of", "check_methods", "explain_cam"],
        "gradient": ["guided_backprop", "guided_backprops"],
    },
)
