"""From torch: a module, exported, as a program of operations that JAX runs."""
