"""Rules that several wire formats share. All modules are pure."""
