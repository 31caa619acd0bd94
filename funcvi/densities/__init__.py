"""Log densities that are right in float32 wherever our draws are, those of models too."""
