// The stage itself: that it reads what gdbus writes, that nothing of the tester's own desktop is on it, and that nothing outlives it.

import assert from "node:assert/strict";
import { access } from "node:fs/promises";
import { it } from "node:test";

import { read } from "./gvariant.js";
import { eventually, open } from "./stage.js";

it("reads what gdbus writes", () => {
  const cases = [
    ["(<true>,)", [true]],
    ["()", []],
    ["(uint32 7, -3, 0x10, 1.5)", [7, -3, 16, 1.5]],
    ["(<'Active'>,)", ["Active"]],
    ["({'a': <[byte 0x89, 0x50]>, 'b': <@as []>},)", [{ a: [137, 80], b: [] }]],
    [String.raw`("it's", 'say \'x\' \n \u00fc')`, ["it's", "say 'x' \n ü"]],
    ["(objectpath '/a', @a{sv} {})", ["/a", {}]],
    ["(uint32 1, (0, {'x': <'y'>}, [<(1, {'l': <'m'>}, @av [])>]))", [1, [0, { x: "y" }, [[1, { l: "m" }, []]]]]],
  ];
  for (const [text, value] of cases) assert.deepEqual(read(text), value, text);
  for (const text of ["", "(", "('a", "(1 2)", "(1,) 2", "[1", "nonsense", "{'a' 1}"]) assert.throws(() => read(text), /no GVariant/, text);
});

it("is a desktop of its own, and nothing outlives it", { timeout: 60_000 }, async () => {
  const stage = await open();
  try {
    assert.deepEqual(await stage.trays(), []);
    assert.deepEqual(await stage.windows(), []);
    const home = await stage.run("sh", ["-c", "echo $HOME $XDG_CONFIG_HOME"]);
    assert.equal(home, `${stage.home} ${stage.home}/.config\n`);

    await stage.copy("words in the clipboard");
    assert.equal(await stage.run("xclip", ["-o", "-selection", "clipboard"]), "words in the clipboard");

    await stage.call("org.freedesktop.Notifications", "/org/freedesktop/Notifications", "org.freedesktop.Notifications.Notify",
      "'a program'", "0", "''", "'A summary'", "'A body'", "[]", "{}", "5000");
    await eventually("the notification", () => stage.notifications().length);
    assert.deepEqual(stage.notifications(), [{ program: "a program", summary: "A summary", body: "A body" }]);

    // Left behind by a parent that ended.
    await stage.run("sh", ["-c", "sleep 600 >/dev/null 2>&1 &"]);
    assert.ok((await stage.processes()).some(({ command }) => command === "sleep 600"));
  } finally {
    await stage.end();
  }
  assert.deepEqual(await stage.processes(), []);
  await assert.rejects(access(stage.folder));
});
