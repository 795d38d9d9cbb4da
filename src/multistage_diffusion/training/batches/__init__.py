"""The batches of a run, as functions of its configuration and the images seen."""
