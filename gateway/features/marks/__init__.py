"""Signed marks: each text of an answer gets a signature that anybody can check."""
