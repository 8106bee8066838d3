"""Loss, optimizer, schedule, metric, and what happens around a training."""
