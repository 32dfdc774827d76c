"""What units respond to: record activations, label units, certify labels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "activations": ["record_activations", "record_embeddings"],
        "blocks": ["Recording"],
        "concepts": ["Concepts", "load_concepts"],
        "similarity": ["MEASURES", "soft_wpmi"],
        "label": ["evaluate_output_units", "label_units", "read_descriptions"],
        "membership": ["Membership", "compositions", "membership_of"],
        "certificates": ["adjust", "certify", "score_all", "untrained_view"],
        "kinds": ["compare_kind", "kinds_of"],
    },
)
