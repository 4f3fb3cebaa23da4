"""Pictures of results, one file a figure, all in one style and at the width of a paper's column.

Each `draw` returns a matplotlib figure, or raises ValueError and says why there is none; each
`pictures` names and captions those that a paper has. `style` holds what they share, `saved` how
they lie on disk.
"""
