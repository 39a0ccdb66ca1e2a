"""Offline training of RPN, R and I end to end on image pairs (Section 3.4)."""
