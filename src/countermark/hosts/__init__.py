"""Floor 7: durable engines that schedule and resume work. What was decided and done stands in the gate's records."""
