"""All that is known of the types of node: formulas of tensors, and what they read of a node. May import graph and
ops."""
