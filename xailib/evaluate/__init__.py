"""Whether explanations can be trusted: faithfulness, randomisation, stability."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "faithfulness": ["explanation_curves", "faithfulness_curves"],
        "metrics": ["score"],
        "scores": ["compare_with_baselines", "curve_scores"],
        "randomisation": ["cascade", "explain_targets"],
        "stability": ["photographs_table"],
        "truth": ["design_errors", "exact_lime", "exact_shapley"],
    },
)
