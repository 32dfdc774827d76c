"""How far two explanations agree: masks, IoU and its chance level, boxes, intervals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "masks": ["area_mask", "lime_mask", "value_mask"],
        "iou": ["lime_cam_agreement"],
        "chance": ["chance_iou", "moved_iou", "shuffled_iou"],
        "pairs": ["maps_of", "pair_table", "sweep_table"],
        "localisation": ["load_boxes"],
        "intervals": ["holm", "mean_interval", "paired"],
    },
)
