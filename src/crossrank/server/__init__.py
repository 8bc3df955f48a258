"""One process that every search and RAG product accepts as its reranker."""
