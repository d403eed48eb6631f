"""Requests that are not chats: embeddings, rerank, transcriptions and speech, and the table of all uses."""
