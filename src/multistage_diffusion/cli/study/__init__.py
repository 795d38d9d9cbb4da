"""What ``multistage study`` runs."""
