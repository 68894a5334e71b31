"""The public API: the reweighted backward, weights and scores of a model, the step for a loop, verification.

May import engine, state, ops, nodes, graph, learned and errors; only fsr, cli and demo may import it."""
