"""Follow a recipe: data, loss, trainer, checkpoint."""
