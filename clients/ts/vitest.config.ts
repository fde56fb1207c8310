import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { alias: { "@balcony/client": new URL("./src/index.ts", import.meta.url).pathname } },
  test: { include: ["test/**/*.test.ts"], testTimeout: 20_000, hookTimeout: 120_000 },
});
