// The pages: one bundle for the window and for phones. Paths are relative, so that the same files work at `/`, at `/pair` and
// inside the window. The player is a chunk of its own: it is loaded when somebody plays.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";
import { VitePWA } from "vite-plugin-pwa";

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Puts what is text beside itself in the forms in which it is sent. After everything else: nothing of it is for the service worker. */
const compressed = (): Plugin => ({
  name: "compressed",
  apply: "build",
  enforce: "post",
  closeBundle: {
    order: "post",
    sequential: true,
    handler() {
      for (const entry of readdirSync(at("./dist"), { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !/\.(js|css|html|svg|webmanifest)$/.test(entry.name)) continue;
        const path = `${entry.parentPath}/${entry.name}`;
        const bytes = readFileSync(path);
        writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }));
        writeFileSync(`${path}.br`, brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }));
      }
    },
  },
});

export default defineConfig({
  base: "./",
  resolve: { alias: { "@xmldom/xmldom": at("./src/player/xml.ts"), "@balcony/client": at("../clients/ts/src/index.ts"), $lib: at("./src/lib"), $parts: at("./src/parts") } },
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false }, reportCompressedSize: false, chunkSizeWarningLimit: 800, rolldownOptions: { output: { codeSplitting: { groups: [
    // Video.js changes seldom: a file of its own stays in the browser's cache. What keeps it quiet has to come before it.
    { name: "video", test: /node_modules\/(video\.js|@videojs|videojs-|m3u8-parser|mpd-parser|mux\.js|aes-decrypter|global|@babel|keycode|safe-json-parse|is-function|min-document|process)|player\/(quiet|xml)/ },
    { name: "video-hls", test: /node_modules\/hls\.js/ },
  ] } } } },
  server: { host: "127.0.0.1" },
  plugins: [
    svelte(),
    VitePWA({
      // Registered by hand, and only where a service worker may be: not in the window, not on plain HTTP, not behind an untrusted certificate.
      injectRegister: null,
      filename: "sw.js",
      includeAssets: ["icon.svg"],
      manifest: {
        id: "/",
        name: "Balcony",
        short_name: "Balcony",
        description: "Films from your computer on your phone.",
        start_url: "./",
        scope: "./",
        display: "standalone",
        background_color: "#0e1312",
        theme_color: "#0e1312",
        icons: [
          { src: "icon.svg", sizes: "any", type: "image/svg+xml" },
          { src: "icon-192.png", sizes: "192x192", type: "image/png" },
          { src: "icon-512.png", sizes: "512x512", type: "image/png" },
          { src: "icon-maskable-512.png", sizes: "512x512", type: "image/png", purpose: "maskable" },
        ],
        share_target: { action: "./", method: "GET", params: { title: "title", text: "text", url: "url" } },
        protocol_handlers: [{ protocol: "magnet", url: "./?text=%s" }],
      },
      workbox: {
        // The shell; the player joins it when it was loaded once. Nothing of the API and no film is ever kept.
        globPatterns: ["index.html", "icon*", "assets/*.{js,css}"],
        globIgnores: ["assets/video*", "assets/Player*"],
        navigateFallback: "index.html",
        navigateFallbackDenylist: [/^\/api\//, /^\/m\//, /^\/t\//, /^\/p$/, /^\/ca\./],
        cleanupOutdatedCaches: true,
        ignoreURLParametersMatching: [/.*/],
        runtimeCaching: [{ urlPattern: ({ sameOrigin, url }) => sameOrigin && url.pathname.startsWith("/assets/"), handler: "CacheFirst", options: { cacheName: "player", expiration: { maxEntries: 20 } } }],
      },
    }),
    compressed(),
  ],
  test: { environment: "node", include: ["test/**/*.test.ts"] },
});
