"""The one schedule: cut the graph, find owners, send gradients down and tangents up, weigh, update.

May import nodes, graph, ops and errors; it names no type of node and knows no model. Nothing in nodes, graph or ops may
import it."""
