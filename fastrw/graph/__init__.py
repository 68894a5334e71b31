"""torch's autograd graph as data: its nodes, what they saved, what they send.

May import only errors: no formula, no op."""
