"""What makes convolutions fast on a CPU: fewer products, and memory that is used again."""
