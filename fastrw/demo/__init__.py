"""The demo: what example weights do for real images whose labels are partly wrong and whose classes are imbalanced."""
