"""Checkpoints of a training run.

``RUN/checkpoints/<images>/`` holds ``model.safetensors`` (averaged weights, ready to sample from)
and ``training.safetensors`` (weights, moments of the optimizer, other averages, running sums). A
checkpoint is written to a temporary folder and renamed, so that one that exists is complete.

Where weights are sharded, each rank writes its own rows of them and of all that has their shape to
a file beside these two, while training continues. Rank 0 then joins the averaged weights, so that
no process ever holds all of them. Both kinds are read by any number of ranks, sharded or not.
"""
