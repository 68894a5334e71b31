"""torch's autograd graph as data: which nodes there are, what they saved, what they send. No formula and no operation
of ours; imports nothing of fastrw but its errors."""
