"""Requests that are not chats: embeddings, rerank, decisions, transcriptions and speech, and the table of all uses."""
