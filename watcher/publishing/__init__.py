"""Publishing: from a claimed row to a private repo with one commit."""
