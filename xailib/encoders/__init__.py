"""Image-text encoders: CLIP, OpenCLIP and the ConSE surrogate."""
