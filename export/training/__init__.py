"""Training the moderator: labelled text and a recipe in, the weights of an encoder with its head out."""

from export.training.recipe import TrainingRecipe, read_recipe

__all__ = ["TrainingRecipe", "read_recipe"]
