"""From raw examples to shards."""
