"""What units respond to: record activations, score concepts, label units."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "activations": ["record_activations"],
        "blocks": ["Recording"],
        "embeddings": ["record_embeddings"],
        "concepts": ["Concepts", "load_concepts"],
        "similarity": ["MEASURES", "soft_wpmi"],
        "label": ["evaluate_output_units", "label_units"],
        "kinds": ["compare_kind", "kinds_of"],
        "descriptions": ["read_descriptions"],
    },
)
