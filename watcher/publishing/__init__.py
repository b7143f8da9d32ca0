"""Publishing: from a claimed row to a private repo in one commit."""
