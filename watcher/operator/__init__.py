"""What a person types and reads: the commands, their screens, and the doctor."""
