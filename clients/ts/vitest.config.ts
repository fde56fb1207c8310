import { defineConfig } from "vitest/config";

const own = new URL("./src/index.ts", import.meta.url).pathname;

export default defineConfig({
  resolve: { alias: { "@balcony/client": own } },
  test: {
    projects: [
      // Needs nothing but this folder.
      { extends: true, test: { name: "alone", include: ["test/*.test.ts"], testTimeout: 20_000 } },
      // SERVER_UNDER_TEST names the server's program. One file at a time: each starts a server.
      { extends: true, test: { name: "server", include: ["test/against/*.test.ts"], testTimeout: 60_000, hookTimeout: 180_000, fileParallelism: false } },
    ],
  },
});
