"""Where images come from: one module for each family of sources; ``load`` picks the one to use."""
