"""What a row costs and how long it takes, measured beside what one would do without us."""
