"""What the kernel adds to shell_plus."""
