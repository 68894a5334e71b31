"""What the forwards of a model move, put back; and batches as nested data, joined and mapped.

May import errors alone: it knows modules and tensors, no graph and no score."""
