"""The replicated report: its published files, the audit of them, the claims tested."""
