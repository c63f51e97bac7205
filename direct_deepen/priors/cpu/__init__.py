"""How a stack of 3×3 convolutions and its gradient are computed on a CPU: fewer products, and memory used again."""
