"""How far two explanations agree: masks, IoU and its chance level, boxes, intervals."""
