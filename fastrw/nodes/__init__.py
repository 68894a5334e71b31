"""All that is known of the types of node, a file a family: what it reads of a node, and formulas of tensors.

May import graph, ops and errors, and nothing of the schedule."""
