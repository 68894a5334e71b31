"""What example weights do for real images whose labels are partly wrong and whose classes are imbalanced.

May import the public API, fsr and testing; nothing but cli may import it."""
