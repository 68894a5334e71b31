"""A model's state, saved and restored around its forwards; and batches as nested data, joined and mapped.

May import only errors and learned: it knows modules and tensors, but no graph and no score."""
