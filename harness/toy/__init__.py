"""The model that ships with the package; `harness train toy` makes it again."""
