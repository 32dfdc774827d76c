"""Which pixels a prediction rests on: LIME and class activation maps, as `Explanation` records."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "explanation": ["Explanation", "Superpixels"],
        "lime": ["explain_lime", "explain_lime_targets"],
        "lime_engine": ["LimeImageExplainer"],
        "preflight": ["Answer", "workable"],
        "requests": ["explain_many"],
        "cam.methods": ["explain_cam"],
        "cam.gradient": ["guided_backprop", "guided_backprops"],
    },
)
