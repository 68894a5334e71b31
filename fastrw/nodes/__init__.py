"""All knowledge of node types, one file per family: what is read from a node, and formulas on tensors.

May import graph, ops and errors, but not engine."""
