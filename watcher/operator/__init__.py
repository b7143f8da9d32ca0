"""What an operator types and reads: the commands, their screens, and the doctor."""
