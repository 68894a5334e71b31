"""The algorithm: find owners, cut the graph, send gradients down and tangents up, compute weights, update.

May import nodes, graph, ops, learned and errors; it names no node type and knows no model. Nothing in nodes, graph or
ops may import it."""
