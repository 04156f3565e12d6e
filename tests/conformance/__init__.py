"""Wrappers of GPU instructions: their PTX as recorded, their results on the model and on a GPU."""
