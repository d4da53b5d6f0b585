"""What runs programs, one file for each."""
