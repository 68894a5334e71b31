"""The one schedule: cut the graph, measure owners, send tangents up and gradients down, weigh, update. Names no type of
node; may import graph, nodes and ops, and nothing above them."""
