"""Class activation maps: Grad-CAM and its relatives, AblationCAM, ScoreCAM."""
