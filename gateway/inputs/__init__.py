"""Requests that are not chats, from their values to their answer. Each call is decided as a chat is."""
