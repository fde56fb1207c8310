// What is shipped: it is small, its types are those of the API document, they need neither a browser nor Node, and the README is true.

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";

import ts from "typescript";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { build, type Rolldown } from "vite";

const home = fileURLToPath(new URL("..", import.meta.url));
const command = promisify(execFile);
const LARGEST = 6 * 1024;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "balcony-package-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What the compiler says of a program with one more file, in a folder of ours. */
function complaints(file: string, options: ts.CompilerOptions): string[] {
  const program = ts.createProgram([file], { strict: true, noEmit: true, target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, skipLibCheck: false, ...options });
  // The libraries' own declarations are not ours to check, and there are many.
  const ours = program.getSourceFiles().filter(({ fileName }) => fileName.startsWith(folder) || fileName.startsWith(join(home, "src")));
  expect(ours.length).toBeGreaterThan(5);
  return [...program.getOptionsDiagnostics(), ...ours.flatMap((one) => [...program.getSyntacticDiagnostics(one), ...program.getSemanticDiagnostics(one)])].map(
    (one) => `${one.file?.fileName ?? ""}: ${ts.flattenDiagnosticMessageText(one.messageText, "\n")}`,
  );
}

describe("the package", () => {
  it("is small", async () => {
    const output = (await build({
      configFile: false,
      logLevel: "error",
      root: home,
      build: { write: false, target: "es2022", rolldownOptions: { output: { minify: true } }, lib: { entry: join(home, "src/index.ts"), formats: ["es"], fileName: "client" } },
      // As an application that uses all of it would bundle it.
    })) as Rolldown.RolldownOutput[];
    const chunks = output.flatMap((one) => one.output);
    expect(chunks).toHaveLength(1);
    const { code } = chunks[0] as Rolldown.OutputChunk;
    const size = gzipSync(code, { level: 9 }).length;
    console.log(`@balcony/client: ${size} bytes compressed, ${code.length} as they are`);
    expect(size).toBeLessThanOrEqual(LARGEST);
    expect(code, "nothing is imported").not.toMatch(/\bimport\b\s*[\w{*"'(]/);
  });

  it("has the types of the API document; renew them by: npm run types -w @balcony/client", async () => {
    const fresh = join(folder, "schema.d.ts");
    const cli = join(dirname(createRequire(import.meta.url).resolve("openapi-typescript/package.json")), "bin/cli.js");
    await command(process.execPath, [cli, join(home, "../openapi.json"), "-o", fresh]);
    expect((await readFile(join(home, "src/schema.d.ts"), "utf8")) === (await readFile(fresh, "utf8")), "schema.d.ts is old").toBe(true);
  }, 60_000);

  it("has no interim shape of what the document knows", async () => {
    const { paths } = JSON.parse(await readFile(join(home, "../openapi.json"), "utf8")) as { paths: Record<string, unknown> };
    const interim = await readFile(join(home, "src/interim.ts"), "utf8").catch(() => "");
    const listed = [...interim.matchAll(/^ {2}"(\/[^"]+)":/gm)].map(([, path]) => path as string);
    expect(listed.filter((path) => path in paths)).toEqual([]);
  });

  it("is built, and its declarations need neither a browser nor Node", async () => {
    const dist = join(folder, "dist");
    const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
    await command(process.execPath, [tsc, "-p", join(home, "tsconfig.build.json"), "--outDir", dist]);
    await writeFile(join(dist, "schema.d.ts"), await readFile(join(home, "src/schema.d.ts")));
    const user = join(folder, "user.ts");
    await writeFile(user, `import { StreamingService, type Stream } from "./dist/index.js";\nexport const start = (magnet: string, signal: AbortSignal): Promise<Stream> => new StreamingService().streamAndWait(magnet, {}, undefined, { signal });\n`);
    expect(complaints(user, { lib: ["lib.es2022.d.ts", "lib.dom.d.ts"], types: [], exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true }), "in a browser").toEqual([]);
    const typeRoots = [join(dirname(createRequire(import.meta.url).resolve("@types/node/package.json")), "..")];
    expect(complaints(user, { lib: ["lib.es2022.d.ts"], types: ["node"], typeRoots }), "in Node").toEqual([]);
    // What was built runs.
    const { stdout } = await command(process.execPath, ["--input-type=module", "-e", `import { StreamingService } from ${JSON.stringify(join(dist, "index.js"))}; console.log(new StreamingService({ baseUrl: "https://nas:3443/" }).baseUrl)`]);
    expect(stdout.trim()).toBe("https://nas:3443");
  }, 180_000);
});

describe("the README", () => {
  it("has an example that compiles", async () => {
    const text = await readFile(join(home, "README.md"), "utf8");
    const blocks = [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code as string);
    expect(blocks).toHaveLength(1);
    const file = join(folder, "example.ts");
    await writeFile(file, blocks[0] as string);
    const options = { lib: ["lib.es2022.d.ts", "lib.dom.d.ts"], types: [], noUnusedLocals: true, paths: { "@balcony/client": [join(home, "src/index.ts")] } };
    expect(complaints(file, options)).toEqual([]);
    await writeFile(file, (blocks[0] as string).replace("balcony.streamAndWait(", "balcony.streamAndWatch("));
    expect(complaints(file, options).join(), "the check can fail").toContain("streamAndWatch");
  }, 120_000);

  it("names all methods, and all that is exported as a value", async () => {
    const text = await readFile(join(home, "README.md"), "utf8");
    const client = await import("../src/index.js");
    const methods = Object.getOwnPropertyNames(client.StreamingService.prototype).filter((name) => name !== "constructor");
    expect(methods.length).toBeGreaterThan(12);
    for (const name of [...methods, ...Object.keys(client)]) expect(text, name).toMatch(new RegExp(`\\b${name}\\b`));
  });
});
