"""Decisions: questions with closed answers, the probability of each answer, and the vendors' formats.

Adapters whose provider decides have the member `decisions`.
"""
