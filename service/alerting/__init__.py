"""From windows of statistics to episodes of findings."""
