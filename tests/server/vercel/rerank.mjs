// Ranks with the Vercel AI SDK, and prints what it returns: node rerank.mjs BASE-URL KEY < {query, documents, topN}
import { readFileSync } from "node:fs";
import { createCohere } from "@ai-sdk/cohere";
import { rerank } from "ai";

const [baseURL, apiKey] = process.argv.slice(2);
const cohere = createCohere({ baseURL, apiKey });
const asked = JSON.parse(readFileSync(0, "utf-8"));
try {
  const { ranking } = await rerank({ model: cohere.reranking("rerank-v3.5"), ...asked, maxRetries: 0 });
  console.log(JSON.stringify({ ranking }));
} catch (error) {
  console.log(JSON.stringify({ status: error.statusCode, message: error.message }));
}
