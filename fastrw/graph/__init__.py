"""torch's autograd graph as data: which nodes there are, what they saved, what they send.

May import errors alone: no formula, no op."""
