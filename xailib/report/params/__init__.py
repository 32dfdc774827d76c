"""The parameters of each notebook, and the profiles that set them."""
