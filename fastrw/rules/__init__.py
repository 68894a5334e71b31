"""What each operation contributes to the scores, given the directions of the parameters in it.

For any operation, s_i += <g_i, (d op / d theta . V)_i>: its derivative along the directions with the batch arguments
held fixed, dotted with the gradient of its output. `RULES` has the fast forms; `generic` serves every other operation.
"""

from fastrw.rules import convolution, elementwise, embedding, linear, norms
from fastrw.rules.directed import Rule

RULES: dict[object, Rule] = {**linear.RULES, **convolution.RULES, **norms.RULES, **embedding.RULES, **elementwise.RULES}
