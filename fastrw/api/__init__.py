"""What users import: the reweighted backward, weights and scores of a model, the step for a loop, verification.

May import engine, state, ops, nodes, graph and errors; nothing but fsr, cli and demo may import it."""
