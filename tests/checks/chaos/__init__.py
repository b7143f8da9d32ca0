"""Nothing lost, nothing doubled, whatever is killed, frozen, cut or lied to: played with seeds, audited from outside."""
