"""Redaction: deployments get placeholders in place of personal values, and answers get the values back."""
