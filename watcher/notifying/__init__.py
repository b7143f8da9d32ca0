"""What the operator is told of: failures, outages, trainings and overdue erasures, as requests to an address of theirs."""
